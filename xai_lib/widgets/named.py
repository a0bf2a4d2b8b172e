"""The texts and the questions that can be chosen, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import InputError, TargetError
from xai_lib.widgets.gallery import free_name


def named_texts(texts) -> dict[str, str]:
    """Return {name: text} of a mapping, a list of texts or one text.

    A text without a name goes by its beginning. Raises InputError where there is no text.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Mapping | Sequence) or isinstance(texts, bytes) or not len(texts):
        raise InputError(
            f"texts is {type(texts).__name__}{' and empty' if not texts else ''}; expected a text, "
            "a list of texts or a {name: text}."
        )
    pairs = texts.items() if isinstance(texts, Mapping) else ((None, text) for text in texts)
    named: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(text, str):
            raise InputError(f"texts holds {type(text).__name__}; expected texts only.")
        named[free_name(str(name) if name is not None else short(text), named)] = text
    return named


def short(text: str, length: int = 40) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def named_samples(samples) -> dict[str, QuestionSample]:
    """Return {name: sample} of a mapping, a sequence or one sample. Raises InputError."""
    samples = getattr(samples, "samples", samples)
    if isinstance(samples, QuestionSample):
        samples = [samples]
    if not isinstance(samples, Mapping | Sequence) or isinstance(samples, str) or not len(samples):
        raise InputError(
            "There is no question to explore: give a QuestionSample, a list of them or "
            "{name: QuestionSample}, such as xai_lib.datasets.sample_questions(...) returns."
        )
    pairs = samples.items() if isinstance(samples, Mapping) else ((s, s) for s in samples)
    named: dict[str, QuestionSample] = {}
    for name, sample in pairs:
        if not isinstance(sample, QuestionSample):
            raise InputError(f"samples holds {type(sample).__name__}; expected QuestionSamples.")
        if sample.features is None or sample.boxes is None:
            raise InputError(
                f"The sample {sample.key!r} has no regions; expected both of a detector."
            )
        name = sample.key if isinstance(name, QuestionSample) else str(name)
        named[free_name(name, named)] = sample
    return named


def text_lines_of(texts) -> tuple[str, ...]:
    """Return the texts that are scored; lines of one string. Raises InputError where none is."""
    found = texts.splitlines() if isinstance(texts, str) else list(named_texts(texts).values())
    found = tuple(text.strip() for text in found if text.strip())
    if not found:
        raise InputError("There is no text to score: give at least one, each on a line of its own.")
    return found


def text_number(texts: tuple[str, ...], wanted: int | str | None) -> int | None:
    """Return the place of a text given by number or as it is. Raises TargetError."""
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted in texts:
        return texts.index(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(texts):
        return wanted
    raise TargetError(
        f"{wanted!r} is none of the texts; expected one of them, or a number from 0 to "
        f"{len(texts) - 1}."
    )
