"""Generated questions on regions of scenes; the regions and words that decide are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from xai_lib.datasets.base import QuestionDataset, QuestionSample
from xai_lib.datasets.fingerprints import of_generated
from xai_lib.datasets.registry import UNSEEN, Asked, dataset
from xai_lib.datasets.worlds.attributes import Attributes
from xai_lib.datasets.worlds.question_scenes import QuestionScenes
from xai_lib.datasets.worlds.question_wording import ANSWERS, KINDS, Asking, Question
from xai_lib.datasets.worlds.wording import joined
from xai_lib.errors import InputError, OptionError

QUESTIONS, EVALUATION_SEED = 10_000, 90_210
_DIGESTED = 50


@dataclass(frozen=True)
class GeneratedQuestion(QuestionSample):
    """A question of the generated world.

    kind: one of KINDS. domain: what can answer it. roles (regions,): of those that decide 1 where
    the question names it, 2 where it names it after another one, 3 where it asks for it as the
    neighbour of that one; 0 of all others.
    """

    kind: str = ""
    domain: tuple[str, ...] = ()
    roles: Int[Tensor, " r"] | None = None


class GeneratedQuestions(QuestionDataset):
    """A seeded set of n questions on scenes of six objects; question i depends on seed and i alone.

    Kinds: `attribute` ("what colour is the large star ?", "where is the red disc ?"), `count`
    ("how many red objects are there ?", 0 to 3), `existence` ("is there a green cross ?") and
    `relation` ("what is just left of the blue disc ?", "is the red star above the pink moon ?").
    kind: one of them, or None for all, equally often. Each sample has the image, 11 to 13 regions
    of a simulated detector (`QuestionScenes.detect`), those that decide as `regions`, and the
    words that do as `rationale`: the names of attributes, relations and objects. Where the answer
    is "no" or "0" because there is no such object, no region decides. images=False leaves out the
    painting. Raises InputError for n < 1, OptionError for an unknown kind.

    >>> sample = GeneratedQuestions(8, seed=0)[3]
    >>> sample.features.shape[1], sample.boxes.shape[1], sample.regions.dtype
    (64, 4, torch.bool)
    """

    has_evidence = True
    class_names = ANSWERS

    def __init__(
        self,
        n: int = QUESTIONS,
        seed: int | tuple[int, ...] = EVALUATION_SEED,
        kind: str | None = None,
        images: bool = True,
        name: str = "questions",
    ):
        if n < 1:
            raise InputError(f"GeneratedQuestions need n >= 1, got n={n}.")
        if kind is not None and kind not in KINDS:
            raise OptionError(f"kind={kind!r} is unknown; expected one of {', '.join(KINDS)}.")
        self.name, self.n, self.kind, self.images = name, n, kind, images
        self.scenes = QuestionScenes(n, seed)
        self.seed = self.scenes.seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> GeneratedQuestion:
        index = range(self.n)[index]
        objects, owners, features, boxes = self.scenes.detect(index)
        question = self._ask(index, objects)
        text, rationale = sentence(question)
        return GeneratedQuestion(
            key=f"question-{index:05d}",
            question=text,
            features=features,
            boxes=boxes,
            image=self.scenes[index].image if self.images else None,
            answers={question.answer: 1.0},
            label=ANSWERS.index(question.answer),
            regions=torch.tensor([owner in question.deciding for owner in owners.tolist()]),
            roles=torch.tensor([question.roles.get(owner, 0) for owner in owners.tolist()]),
            rationale=rationale,
            kind=question.kind,
            domain=question.domain,
        )

    def question(self, index: int) -> Question:
        """Return question `index` with the objects that decide it, without its regions."""
        index = range(self.n)[index]
        return self._ask(index, self.scenes.objects(index))

    def _ask(self, index: int, objects: tuple[Attributes, ...]) -> Question:
        rng = np.random.default_rng((*self.seed, index, 3))
        kind = self.kind or KINDS[rng.integers(len(KINDS))]
        return Asking(objects, rng).ask(kind)

    def fingerprint(self) -> dict[str, str | int]:
        """Return name, number, seed and the digest of the first questions."""
        told = [self.question(i) for i in range(min(self.n, _DIGESTED))]
        told = "\n".join(f"{q.text} {q.answer} {q.deciding}" for q in told)
        seed = ",".join(map(str, self.seed))
        return of_generated(self.name, self.n, told.encode(), seed=seed)


def sentence(question: Question) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the question in plain words, and the spans of those that decide."""
    text, spans = joined([question.text])
    return text[0].lower() + text[1:], spans


@dataset(
    "questions",
    modality="question",
    samples=QUESTIONS,
    evidence="regions and rationales",
    origin=UNSEEN,
)
def open_questions(asked: Asked) -> GeneratedQuestions:
    """Return the questions that no model was trained on."""
    return GeneratedQuestions()
