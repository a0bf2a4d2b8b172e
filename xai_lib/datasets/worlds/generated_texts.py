"""The embedded text data sets for evaluation: reviews and messages never trained on."""

from __future__ import annotations

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import of_generated
from xai_lib.datasets.registry import UNSEEN, Asked, dataset
from xai_lib.datasets.worlds.reviews import Reviews
from xai_lib.datasets.worlds.topics import Topics

# Training uses seeds ("0", "train" or "validation"); the cards measure on 1_000_001 and 002.
EVALUATION_SEED = 1_000_003
TEXTS = 10_000
_DIGESTED = 100


def text_world(name: str, n: int, seed: object, **options) -> Reviews | Topics:
    """Return n texts of the data set "reviews", "reviews-5" or "topics" with this seed."""
    if name == "topics":
        return Topics(n, seed, **options)
    return Reviews(n, seed, 5 if name.endswith("-5") else 2, **options)


class GeneratedTexts(TextDataset):
    """10,000 generated texts with their rationales; text i depends on i alone.

    "reviews" (negative, positive) and "reviews-5" (very negative to very positive) are drawn by
    `Reviews`, "topics" (twenty) by `Topics`; their docstrings state the planted rules.
    """

    has_rationales = True

    def __init__(self, name: str, n: int = TEXTS):
        self.name, self.n = name, n
        self._texts = text_world(name, n, EVALUATION_SEED)
        self.class_names = self._texts.class_names

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> TextSample:
        return self._texts[index]

    def fingerprint(self) -> dict[str, str | int]:
        """Return name, number, seed and the digest of the first texts."""
        first = (self[i] for i in range(min(self.n, _DIGESTED)))
        told = "\n".join(f"{sample.label} {sample.rationale} {sample.text}" for sample in first)
        return of_generated(self.name, self.n, told.encode(), seed=EVALUATION_SEED)


@dataset("topics", modality="text", samples=TEXTS, evidence="rationales", origin=UNSEEN)
@dataset("reviews-5", modality="text", samples=TEXTS, evidence="rationales", origin=UNSEEN)
@dataset("reviews", modality="text", samples=TEXTS, evidence="rationales", origin=UNSEEN)
def open_generated(asked: Asked) -> GeneratedTexts:
    """Return generated texts of the world that the name says."""
    return GeneratedTexts(asked.text)
