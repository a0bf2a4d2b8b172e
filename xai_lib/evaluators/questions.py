"""What an evaluator scores of a question: relevance of each region, token and word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.api import explain
from xai_lib.errors import InputError
from xai_lib.evaluators.base import QuestionBatch, Subject
from xai_lib.evaluators.model_rows import ModelRow, rows_of
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.texts import reason_of
from xai_lib.streams.words import TextScores

STREAMS = ("image", "text")
NOT_FINITE = "The relevance of {method!r} holds NaN or Inf for this sample, so it ranks nothing"


@dataclass(frozen=True)
class ExplainedQuestion:
    """One explained question, without padding, on the CPU.

    row: what the model takes. regions, tokens: relevance of each, in float64, special tokens
    included; words: of the question. special: True for tokens that the tokenizer added. logits: in
    float64. explained: class index.
    """

    row: ModelRow
    regions: Float[Tensor, " regions"]
    tokens: Float[Tensor, " tokens"]
    words: TextScores
    special: Bool[Tensor, " tokens"]
    logits: Float[Tensor, " classes"]
    explained: int


def explained_questions(
    subject: Subject,
    batch: QuestionBatch,
    spec: MethodSpec,
    target: Sequence[int] | Tensor | None = None,
    *,
    reduce: str = "max",
) -> list[ExplainedQuestion | str]:
    """Explain every question of a batch for `target` (None: its predicted answer).

    Returns one entry a sample: its explanation, or the reason why there is none (no regions, a
    question too long for the model, NaN). reduce: how pieces' scores make a word's. What is handed
    to `subject.keep` is the relevance of the tokens, then that of the regions. A sample that cannot
    be explained costs only itself; what holds for all is raised.
    """
    found: list[ExplainedQuestion | str | ModelRow] = rows_of(subject, batch)
    good = [i for i, entry in enumerate(found) if not isinstance(entry, str)]
    entries = _explain(subject, batch, good, found, spec, target, reduce)
    for place, entry in zip(good, entries, strict=True):
        found[place] = entry
        if subject.keep is not None and isinstance(entry, ExplainedQuestion):
            both = torch.cat([entry.tokens, entry.regions])
            subject.keep(spec.label, batch.index[place], both)
    return found


def _explain(
    subject: Subject,
    batch: QuestionBatch,
    places: list[int],
    rows: Sequence[ModelRow | str],
    spec: MethodSpec,
    target,
    reduce: str,
) -> list[ExplainedQuestion | str]:
    """Return the entries of some samples, all at once, or else one by one."""
    if not places:
        return []
    chosen = None if target is None else [int(target[i]) for i in places]
    try:
        inputs = subject.processor.of([batch.samples[i] for i in places]).to(subject.device)
        for name, values in inputs.items():
            if values.is_floating_point():
                inputs[name] = values.to(subject.dtype)
        att = explain(subject.model, inputs, spec.name, target=chosen, **spec.options)
    except InputError as error:
        if len(places) == 1:
            return [reason_of(error)]
        return [
            entry
            for place in places
            for entry in _explain(subject, batch, [place], rows, spec, target, reduce)
        ]
    words, text = att.words(reduce), att.part("text").layout
    streams = {name: values.double().cpu() for name, values in att.streams.items()}
    seen = inputs["visual_attention_mask"].bool().cpu()
    found: list[ExplainedQuestion | str] = []
    for i, place in enumerate(places):
        present = text.present[i].cpu()
        entry = ExplainedQuestion(
            rows[place],
            streams["image"][i][seen[i]],
            streams["text"][i][present],
            words[i],
            text.special[i].cpu()[present],
            att.logits[i].double().cpu(),
            int(att.target[i]),
        )
        finite = bool(entry.regions.isfinite().all() and entry.tokens.isfinite().all())
        found.append(entry if finite else NOT_FINITE.format(method=spec.label))
    return found
