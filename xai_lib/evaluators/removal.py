"""Taking units of a sample away, step by step, and what the model makes of the rest.

Every evaluator of this kind is a choice of five things. unit: what goes (a pixel, a token, a word,
a region, an attention head). schedule: how many at each step. order: the most relevant first, or
the least relevant. fill: what takes their place (a colour, another image, the id of padding,
nothing: the others close up, a factor of 0). measure: what is read off the logits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import AnyBatch, QuestionBatch, TextBatch
from xai_lib.evaluators.explained import explained_rows, targets_of
from xai_lib.evaluators.measures import credits_of
from xai_lib.evaluators.packing import Edits, ModelRow, RowEdits, packed, stream_of
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.streams.scales import SOFTMAX, Scale, scale_of

ORDERS = ("positive", "negative")
# Of the curve of what speaks for the explained class, by order.
BETTER = {"positive": "low", "negative": "high"}

Setting = tuple[str, ...]


class Removal(Evaluator):
    """An evaluator that takes units away: `copies` says which, `numbers` what is read off.

    columns: those of a row without numbers. settings: the values that the `groups` after the method
    take, in the order of the rows. not_finite: why a row has no numbers where the logits hold NaN.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[Setting, ...]] = ((),)
    # Of evaluators of texts and questions: whose class is explained.
    explain: str
    not_finite: ClassVar[str] = (
        "The model's logits hold NaN or Inf for a changed text of this sample"
    )

    def check(self, batch: AnyBatch) -> None:
        """Raise an OptionError where the batch lacks what the evaluator needs."""
        if "labels" in self.needs and batch.labels is None:
            raise OptionError(f"{self.name} needs labels. `xai datasets` shows which sets have.")
        if "answers" in self.needs:
            credits_of(batch)

    def copies_a_pass(self, subject: Subject) -> int:
        """Return how many copies share a pass."""
        return subject.batch_size

    def shared(self, subject: Subject, batch: AnyBatch) -> list[Edits]:
        """Return copies that do not depend on a method, which run first whatever is found."""
        return []

    def found(
        self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[tuple[str, Sequence]]:
        """Yield each method's label and what it finds of each sample, or in a str why nothing.

        Of texts and questions their explanations, by the options `explain`, `max_length`, `reduce`.
        """
        target = targets_of(subject, batch, self.explain)
        assert isinstance(batch, TextBatch | QuestionBatch), "images have maps"
        names = [name for name in ("max_length", "reduce") if hasattr(self, name)]
        options = {name: getattr(self, name) for name in names}
        for spec in methods:
            yield spec.label, explained_rows(subject, batch, spec, target, **options)

    @abstractmethod
    def copies(
        self, subject: Subject, batch: AnyBatch, place: int, found: Any
    ) -> list[tuple[Sequence[Setting], Edits | str, object]]:
        """Return one sample's copies, the settings whose rows they make and facts for `numbers`.

        In place of the copies, why there are none.
        """

    @abstractmethod
    def numbers(
        self, logits: Float[Tensor, "steps classes"], facts: Any, scale: Scale
    ) -> Row | None:
        """Return the columns of one row, None where the logits are not finite.

        Raises TargetError where what is measured has no meaning on the model's scale.
        """

    def rows(
        self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        self.check(batch)
        # By method, setting and place: what is known of a row, or the number of its edits.
        rows: dict[tuple[str, Setting, int], str | int] = {}
        facts: list[object] = []
        # Some copies, to tell by what the model makes scores of them.
        seen: list[Edits] = []

        def edits() -> Iterator[Edits]:
            for copies in self.shared(subject, batch):
                facts.append(None)
                seen[:] = seen or [copies]
                yield copies
            for label, found in self.found(subject, batch, methods):
                for i, entry in enumerate(found):
                    made = [(self.settings, entry, None)]
                    if not isinstance(entry, str):
                        made = self.copies(subject, batch, i, entry)
                    for settings, copies, fact in made:
                        known = copies if isinstance(copies, str) else len(facts)
                        rows.update({(label, setting, i): known for setting in settings})
                        if not isinstance(copies, str):
                            facts.append(fact)
                            seen[:] = seen or [copies]
                            yield copies

        logits = packed(subject, edits(), self.copies_a_pass(subject))
        scale = SOFTMAX
        if logits:
            scale = scale_of(subject.model, torch.cat(logits), lambda: packed(subject, seen)[0])
        for spec, setting in product(methods, self.settings):
            group = dict(zip(self.groups, (spec.label, *setting), strict=True))
            for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                known = rows[spec.label, setting, i]
                if isinstance(known, int):
                    found = self.numbers(logits[known], facts[known], scale) or self.not_finite
                else:
                    found = known
                row: Row = {"index": index, "key": key} | group
                if isinstance(found, str):
                    yield row | dict.fromkeys(self.columns) | {"error": found}
                else:
                    yield row | found | {"error": None}


# Schedules and orders.


def rising(
    name: str,
    values: Sequence[float],
    fits: Callable[[float], bool],
    expected: str,
    least: int = 2,
) -> tuple:
    """Return rising numbers that fit as a tuple, or raise an OptionError with what is expected."""
    numbers = [v for v in values if type(v) in (int, float) and fits(v)]
    if not least <= len(values) == len(numbers) or any(np.diff(numbers) <= 0):
        raise OptionError(f"{name} is {list(values)!r}; expected {expected}.")
    return tuple(numbers)


def fractions(name: str, steps: Sequence[float], most: float = 1.0) -> tuple[float, ...]:
    """Return two or more rising fractions of 0 to `most` as a tuple, or raise an OptionError."""
    expected = "at least two rising fractions from 0 to 1"
    return tuple(map(float, rising(name, steps, lambda f: 0 <= f <= most, expected)))


def going(
    scores: Float[Tensor, " units"],
    least_first: bool = False,
    counted: Bool[Tensor, " units"] | None = None,
) -> Int[Tensor, " n"]:
    """Return the places of the `counted` units (None: of all) in the order in which they go.

    Equal scores go in the order of their places.
    """
    places = torch.arange(len(scores)) if counted is None else counted.nonzero().flatten()
    values = -scores[places] if least_first else scores[places]
    return places[values.argsort(descending=True, stable=True)]


def gone(
    order: Int[Tensor, " n"], counts: Sequence[int], units: int
) -> Bool[Tensor, "steps units"]:
    """Return which of `units` are gone once the first `count` of an order are, for each count."""
    lost = torch.zeros(len(counts), units, dtype=torch.bool)
    for line, count in zip(lost, counts, strict=True):
        line[order[:count]] = True
    return lost


def kept_regions(
    scores: Float[Tensor, " regions"], steps: Sequence[float], least_first: bool = False
) -> list[list[int]]:
    """Return the ⌊(1 - f) n⌋ regions that stay at each step f, those that stay longest first.

    The most relevant go first, or the least relevant ones. Equal scores go from the last region to
    the first. The product is that of floats, as published: 10 regions at f = 0.9 keep none.
    """
    ranked = scores.argsort(descending=least_first, stable=True).tolist()
    return [ranked[: int((1 - step) * len(ranked))] for step in steps]


def kept_tokens(
    scores: Float[Tensor, " tokens"],
    steps: Sequence[float],
    least_first: bool = False,
    at_end: int = 1,
) -> list[list[int]]:
    """Return the tokens that stay at each step, in the order of the question.

    The first token and the `at_end` last ones always stay; the others go as regions do.
    """
    last = max(len(scores) - at_end, 1)
    fixed = [0, *range(last, len(scores))]
    inner = kept_regions(scores[1:last], steps, least_first)
    return [sorted(fixed + [place + 1 for place in places]) for places in inner]


# What takes the place of what goes. `place`: of the sample, which tells its copies from others'.


def blanked(
    row: ModelRow,
    lost: Bool[Tensor, "steps tokens"],
    fill: int,
    place: Hashable,
    *,
    hidden: bool = False,
) -> RowEdits:
    """Return copies of a text with the id `fill` in place of tokens, and mask 0 where `hidden`."""
    rows = []
    for line in lost:
        changed = {"input_ids": row["input_ids"].masked_fill(line, fill)}
        if hidden:
            changed["attention_mask"] = row["attention_mask"].masked_fill(line, 0)
        rows.append(row | changed)
    return RowEdits(rows, [(place, line.numpy().tobytes()) for line in lost])


def closed_up(
    row: ModelRow, kept: Sequence[Sequence[int]], place: Hashable, stream: str = "text"
) -> RowEdits:
    """Return copies of which only the tokens, or the regions, of `kept` are left."""
    rows = [
        {name: v[list(places)] if stream_of(name) == stream else v for name, v in row.items()}
        for places in kept
    ]
    return RowEdits(rows, [(place, stream, tuple(places)) for places in kept])


def pad_id(subject: Subject) -> int:
    """Return the id of padding, which takes the place of tokens; 0 in BERT, as published."""
    found = subject.processor.tokenizer.pad_token_id
    if found is None:
        raise OptionError(
            "The tokenizer has no padding token, which takes the place of the tokens that go. Set "
            "one: tokenizer.pad_token = tokenizer.eos_token."
        )
    return found


def mask_id(subject: Subject, instead: str) -> int:
    """Return the id of the mask token, or raise an OptionError that says what to do `instead`."""
    found = subject.processor.tokenizer.mask_token_id
    if found is None:
        raise OptionError(f"The tokenizer has no mask token: use {instead}.")
    return found
