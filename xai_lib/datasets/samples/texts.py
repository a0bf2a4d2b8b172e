"""A few texts to start from, for notebooks and first looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xai_lib.datasets.base import TextSample
from xai_lib.datasets.worlds.reviews import Reviews, review_label
from xai_lib.datasets.worlds.topics import Topics
from xai_lib.datasets.worlds.wording import joined
from xai_lib.errors import InputError

# Written by hand in the words of the generated reviews; what is marked decides the label.
_REVIEWS: dict[str, tuple[str, ...]] = {
    "negation": (
        "my sister and I tried this restaurant on Friday.",
        "the weather that day was wonderful.",
        "the soup was ⟦not good at all⟧.",
        "we paid twenty dollars and kept the receipt.",
    ),
    "contrast": (
        "I saw this film last weekend.",
        "the acting was dull, but the story is ⟦wonderful⟧.",
        "it runs for almost ninety minutes.",
        "my cousin called me after work from Chicago.",
    ),
    "other things": (
        "my brother hates rain.",
        "because of the terrible traffic we came late.",
        "last night I attended the concert with my uncle.",
        "I found the singer ⟦superb⟧ and I ⟦enjoyed⟧ the encore.",
    ),
    "negated contrast": (
        "two colleagues and I played this game after work.",
        "the artwork was brilliant, but the music did ⟦not impress⟧ me and the story is ⟦boring⟧.",
        "the view from my office was superb.",
    ),
}
_DEGREES: dict[str, tuple[str, ...]] = {
    "mild": (
        "I bought this phone in October.",
        "the screen is ⟦fairly nice⟧ and I ⟦liked⟧ the keyboard.",
        "my old car was terrible.",
        "the box holds a cable and a manual.",
    ),
    "strong": (
        "my parents and I visited this hotel during the holidays.",
        "the room was ⟦really bad⟧.",
        "I ⟦disliked⟧ the breakfast.",
        "my aunt loves the seaside.",
    ),
    "mixed": (
        "I read this novel last weekend.",
        "the plot was ⟦brilliant⟧, while the ending ⟦bored⟧ me.",
        "it has about fifty pages.",
    ),
    "negation": (
        "I took this course on weekdays.",
        "the lecturer was ⟦not boring⟧.",
        "the reading list was ⟦not terrible⟧.",
        "the meeting at work was a disaster.",
    ),
}


@dataclass(frozen=True)
class SampleTexts:
    """Named texts; `samples[name]` has text, label and rationale (None where nobody knows)."""

    samples: Mapping[str, TextSample]

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return list(self.samples)

    def list(self) -> list[str]:
        """Texts in order, as a processor takes them."""
        return [sample.text for sample in self.samples.values()]


def sample_texts(model: str, text: str | None = None, count: int = 4, seed: int = 7) -> SampleTexts:
    """Return texts for `model`: the user's own `text`, else ones of its embedded world.

    "bert-reviews": first a negation, a contrast, a text that judges other things as well, and both;
    then generated reviews. "bert-reviews-5": degrees and a mixed review first. "bert-topics": every
    second message has a quotation about something else. Any other model gets the reviews without
    label and rationale, since nobody knows what decides for it.
    """
    if count < 1:
        raise InputError(f"count={count} is not possible: give 1 or more.")
    if text is not None:
        return SampleTexts({"yours": TextSample("yours", text)})
    if model.endswith("-topics"):
        found = {}
        for i in range(count):
            sample = Topics(count, seed, aside=bool(i % 2))[i]
            topic = f"{Topics.class_names[sample.label]} {i + 1}"
            found[f"{topic} with a quotation" if i % 2 else topic] = sample
        return SampleTexts(found)
    five = model.endswith("-reviews-5")
    written = _DEGREES if five else _REVIEWS
    found = {name: _sample(name, text, 5 if five else 2) for name, text in written.items()}
    data = Reviews(count, seed, 5 if five else 2)
    for i in range(count - len(found)):
        found[f"{data.class_names[data[i].label]} {i + 1}"] = data[i]
    if not model.endswith(("-reviews", "-reviews-5")):
        found = {name: replace(s, label=None, rationale=None) for name, s in found.items()}
    return SampleTexts(dict(list(found.items())[:count]))


def _sample(name: str, sentences: tuple[str, ...], classes: int) -> TextSample:
    text, rationale = joined(sentences)
    label = review_label([text[start:end] for start, end in rationale], classes)
    return TextSample(name, text, label=label, rationale=rationale)
