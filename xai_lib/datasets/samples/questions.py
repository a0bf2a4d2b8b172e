"""A few questions on scenes to start from, for notebooks and first looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xai_lib.datasets.worlds.question_wording import KINDS
from xai_lib.datasets.worlds.questions import GeneratedQuestion, GeneratedQuestions
from xai_lib.errors import InputError, OptionError


@dataclass(frozen=True)
class SampleQuestions:
    """Named questions; `samples[name]` has question, image, features, boxes and what decides."""

    samples: Mapping[str, GeneratedQuestion]

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return list(self.samples)

    def list(self) -> list[GeneratedQuestion]:
        """Samples in order, as `processor.of` takes them."""
        return list(self.samples.values())


def sample_questions(
    model: str, question: str | None = None, count: int = 4, seed: int = 7
) -> SampleQuestions:
    """Return questions for `model` from its embedded world, each kind in turn, on scenes of theirs.

    question: the user's own one instead, asked about each of `count` scenes; then nobody knows its
    answer or what decides it. Raises OptionError for a model of another world, whose detector is
    not simulated here, and InputError for count < 1.
    """
    if not model.endswith("-questions"):
        raise OptionError(
            f"There are no sample questions for {model!r}: lxmert-questions and "
            "visualbert-questions have some; other models need the features of their own detector."
        )
    if count < 1:
        raise InputError(f"count={count} is not possible: give 1 or more.")
    found = {}
    for i in range(count):
        kind, turn = KINDS[i % len(KINDS)], i // len(KINDS) + 1
        sample = GeneratedQuestions(count, seed, kind)[i]
        found[kind if turn == 1 else f"{kind} {turn}"] = sample
    if question is not None:
        found = {
            f"scene {i + 1}": replace(
                sample,
                question=question,
                answers=None,
                label=None,
                regions=None,
                rationale=None,
                kind="",
                domain=(),
                roles=None,
            )
            for i, sample in enumerate(found.values())
        }
    return SampleQuestions(found)
