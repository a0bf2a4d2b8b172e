"""Captions of attribute scenes in varying wording; the words that are evidence are known."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace

from xai_lib.datasets.worlds.attributes import COLOURS, SHAPES, Attributes
from xai_lib.datasets.worlds.wording import Draw

KINDS = tuple(field.name for field in fields(Attributes))
# Every word for an attribute begins with the attribute's own name.
SHAPE_WORDS = {shape: (shape,) for shape in SHAPES} | {
    "disc": ("disc", "circle"),
    "square": ("square", "box"),
    "cross": ("cross", "plus"),
    "moon": ("moon", "crescent"),
}
COLOUR_WORDS = {colour: (colour,) for colour in COLOURS} | {
    "cyan": ("cyan", "turquoise"),
    "purple": ("purple", "violet"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
PLACE_WORDS = {
    "top left": ("top left", "upper left"),
    "top right": ("top right", "upper right"),
    "bottom left": ("bottom left", "lower left"),
    "bottom right": ("bottom right", "lower right"),
    "centre": ("centre", "middle"),
} | {name: (name,) for name in ("top", "left", "right", "bottom")}
_AROUND = {"top": "at the", "bottom": "at the", "left": "on the", "right": "on the"}
NOUNS = ("object", "thing", "shape", "figure")
OPENINGS = (
    "", "", "a photo of ", "a picture of ", "an image of ", "there is ", "this is ", "we see ",
    "here is ", "it shows ",
)  # fmt: skip
ENDINGS = ("", "", "", " on a dull background", " on a grey ground", " in this picture", " .")


@dataclass(frozen=True)
class Mention:
    """What a caption says of the object in `slot`: kind of attribute -> characters (start, end)."""

    slot: int
    words: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Caption:
    """A text about a scene; its mentions say which words tell what about which object."""

    text: str
    mentions: tuple[Mention, ...]

    @property
    def evidence(self) -> tuple[tuple[int, int], ...]:
        """Characters of all words that name an attribute, as spans in order."""
        return tuple(sorted(span for each in self.mentions for span in each.words.values()))

    def without(self, mask: str, kinds: Collection[str] = KINDS) -> Caption:
        """Return the caption with the words of these kinds of attribute replaced by `mask`."""
        lost = [
            span for each in self.mentions for kind, span in each.words.items() if kind in kinds
        ]
        return _rewritten(self, {span: mask for span in lost}, kinds)

    def only(self) -> str:
        """Return the words of the evidence alone."""
        return " ".join(self.text[start:end] for start, end in self.evidence)


def _rewritten(caption: Caption, new: dict, dropped: Collection[str]) -> Caption:
    text, moved, end = "", {}, 0
    for start, stop in sorted(span for each in caption.mentions for span in each.words.values()):
        text += caption.text[end:start]
        words = new.get((start, stop), caption.text[start:stop])
        moved[start, stop] = (len(text), len(text) + len(words))
        text, end = text + words, stop
    mentions = tuple(
        replace(each, words={k: moved[v] for k, v in each.words.items() if k not in dropped})
        for each in caption.mentions
    )
    return Caption(text + caption.text[end:], mentions)


def caption_of(
    objects: Sequence[Attributes],
    draw: Draw,
    slots: Sequence[int] = (0,),
    kinds: Collection[str] | None = None,
) -> Caption:
    """Return a caption of the objects in `slots`, in random words.

    kinds: which attributes are said of every one of them; by default shape and colour mostly,
    size and place sometimes, so that each is learnt.
    """
    parts: list[tuple[str, int | None, str | None]] = [(draw.pick(OPENINGS), None, None)]
    for number, slot in enumerate(slots):
        said = kinds
        if said is None:
            chances = {"shape": 0.85, "colour": 0.85, "size": 0.4, "place": 0.4}
            said = [kind for kind in KINDS if draw.chance(chances[kind])] or ["shape"]
        if number:
            parts.append((" and ", None, None))
        parts += [(words, slot, kind) for words, kind in _phrase(objects[slot], draw, said)]
    parts.append((draw.pick(ENDINGS), None, None))
    text, words = "", {slot: {} for slot in slots}
    for piece, slot, kind in parts:
        if kind is not None:
            words[slot][kind] = (len(text), len(text) + len(piece))
        text += piece
    return Caption(text, tuple(Mention(slot, spans) for slot, spans in words.items()))


def _phrase(thing: Attributes, draw: Draw, said: Collection[str]) -> list[tuple[str, str | None]]:
    noun = (draw.pick(SHAPE_WORDS[thing.shape]), "shape")
    if "shape" not in said:
        noun = (draw.pick(NOUNS), None)
    traits = []
    if "size" in said:
        traits.append((draw.pick(SIZE_WORDS[thing.size]), "size"))
    if "colour" in said:
        traits.append((draw.pick(COLOUR_WORDS[thing.colour]), "colour"))
    place = _place(thing.place, draw) if "place" in said else []
    if traits and draw.chance(0.25):
        later = [part for trait in traits for part in ((" and ", None), trait)][1:]
        found = [noun, *place, (draw.pick((" that is ", " which is ")), None), *later]
    else:
        found = [part for trait in traits for part in (trait, (" ", None))] + [noun, *place]
    return [(f"{article(found[0][0])} ", None), *found]


def _place(place: str, draw: Draw) -> list[tuple[str, str | None]]:
    words = (draw.pick(PLACE_WORDS[place]), "place")
    before = f" {_AROUND.get(place, 'in the')} "
    after = " corner" if place not in (*_AROUND, "centre") and draw.chance(0.6) else ""
    return [(before, None), words, (after, None)]


def article(word: str) -> str:
    """Return "an" before a vowel, else "a"."""
    return "an" if word[0] in "aeiou" else "a"


def prompts(names: Sequence[str], template: str = "{}") -> list[str]:
    """Return a prompt for each name with its article, as in "a red star".

    >>> prompts(["orange ring"], "a photo of {}")
    ['a photo of an orange ring']
    """
    return [template.format(f"{article(name)} {name}") for name in names]


def vocabulary() -> tuple[str, ...]:
    """Return every word that a caption can have, sorted."""
    tables = (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, PLACE_WORDS)
    phrases = [words for table in tables for choices in table.values() for words in choices]
    phrases += [*NOUNS, *OPENINGS, *ENDINGS, *_AROUND.values(), "in the corner and that which is"]
    return tuple(sorted({word for text in phrases for word in re.findall("[a-z]+", text)} | {"an"}))
