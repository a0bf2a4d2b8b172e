"""Generated questions on a scene: their words, their answer, and the objects that decide it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from xai_lib.datasets.worlds.attributes import COLOURS, PLACES, SHAPES, SIZES, Attributes
from xai_lib.datasets.worlds.wording import marked, unmarked

T = TypeVar("T")

KINDS = ("attribute", "count", "existence", "relation")
COUNTS, YES_NO = ("0", "1", "2", "3"), ("yes", "no")
ANSWERS: tuple[str, ...] = (*COLOURS, *SHAPES, *SIZES, *PLACES, *COUNTS, *YES_NO)
PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
# Columns and rows to go from what is asked about to its neighbour.
DIRECTIONS = {
    marked("left") + " of": (-1, 0),
    marked("right") + " of": (1, 0),
    marked("above"): (0, -1),
    marked("below"): (0, 1),
}


@dataclass(frozen=True)
class Question:
    """A question about the objects of a scene.

    text: its words, those that decide between ⟦ and ⟧. answer: one of ANSWERS. deciding: the
    numbers of the objects that decide it; without them the scene says something else or nothing.
    domain: what the question can be answered with at all.
    """

    kind: str
    text: str
    answer: str
    deciding: tuple[int, ...]
    domain: tuple[str, ...]

    @property
    def roles(self) -> dict[int, int]:
        """Of each deciding object what the question says of it, by its number.

        1: names it; 2: names it after another one; 3: asks for it, as the neighbour of that one.
        """
        if self.kind != "relation":
            return dict.fromkeys(self.deciding, 1)
        return dict(zip(self.deciding, (1, 3 if self.domain == SHAPES else 2), strict=True))

    @property
    def plain(self) -> str:
        """The question without marks."""
        return unmarked(self.text)


class Asking:
    """Draw one question of a kind on the objects of a scene.

    Among the answers that the scene allows, each is equally likely, so that the scene alone does
    not tell it.
    """

    def __init__(self, objects: Sequence[Attributes], rng: np.random.Generator):
        self.objects, self.rng = tuple(objects), rng

    def ask(self, kind: str) -> Question:
        """Return a question; forms that this scene does not allow are drawn again."""
        forms = _FORMS[kind]
        while True:
            question = forms[self.rng.integers(len(forms))](self)
            if question is not None:
                return question

    def pick(self, choices: Iterable[T]) -> T:
        """Return one of the choices, all equally likely."""
        listed = list(choices)
        return listed[self.rng.integers(len(listed))]

    def by_answer(self, found: list[tuple[str, T]]) -> tuple[str, T] | None:
        """Return one of the pairs of answer and rest: first an answer, then what has it."""
        if not found:
            return None
        answer = self.pick(sorted({pair[0] for pair in found}))
        return self.pick([pair for pair in found if pair[0] == answer])

    def attribute(self, asked: str, told: tuple[str, str]) -> Question | None:
        """Ask for an attribute of the only object that has two others; neither alone would do."""
        found = []
        for k, each in enumerate(self.objects):
            same = [[getattr(o, t) == getattr(each, t) for t in told] for o in self.objects]
            first, second = map(sum, zip(*same, strict=True))
            if sum(map(all, same)) == 1 and min(first, second) > 1:
                found.append((getattr(each, asked), k))
        drawn = self.by_answer(found)
        if drawn is None:
            return None
        answer, k = drawn
        words = " ".join(getattr(self.objects[k], t) for t in told)
        start = f"{marked('where')} is" if asked == "place" else f"what {marked(asked)} is"
        thing = marked(words) if told[1] == "shape" else f"{marked(words)} object"
        text = f"{start} the {thing} ?"
        return Question("attribute", text, answer, (k,), _DOMAINS[asked])

    def count(self, axis: str, values: Sequence[str]) -> Question:
        """Ask how many objects have a colour or shape."""
        number = {value: 0 for value in values}
        for each in self.objects:
            number[getattr(each, axis)] += 1
        answer = self.pick(sorted(set(number.values())))
        value = self.pick([v for v in values if number[v] == answer])
        thing = marked(PLURALS[value]) if axis == "shape" else f"{marked(value)} objects"
        deciding = tuple(k for k, o in enumerate(self.objects) if getattr(o, axis) == value)
        return Question("count", f"how many {thing} are there ?", str(answer), deciding, COUNTS)

    def existence(self) -> Question:
        """Ask for a colour and a shape that are there both, on one object or on two."""
        names = [each.name for each in self.objects]
        colours = sorted({each.colour for each in self.objects})
        shapes = sorted({each.shape for each in self.objects})
        absent = [f"{c} {s}" for c in colours for s in shapes if f"{c} {s}" not in names]
        answer = self.pick(YES_NO)
        name = self.pick(names if answer == "yes" else absent)
        article = "an" if name[0] in "aeiou" else "a"
        deciding = (names.index(name),) if answer == "yes" else ()
        return Question(
            "existence", f"is there {article} {marked(name)} ?", answer, deciding, YES_NO
        )

    def neighbour(self) -> Question | None:
        """Ask for the shape of the object in the next cell in some direction."""
        at = {_cell(each): k for k, each in enumerate(self.objects)}
        found = []
        for (column, row), k in at.items():
            for words, (right, down) in DIRECTIONS.items():
                other = at.get((column + right, row + down))
                if other is not None:
                    found.append((self.objects[other].shape, (k, other, words)))
        drawn = self.by_answer(found)
        if drawn is None:
            return None
        answer, (k, other, words) = drawn
        text = f"what is just {words} the {marked(self.objects[k].name)} ?"
        return Question("relation", text, answer, (k, other), SHAPES)

    def relation(self) -> Question | None:
        """Ask whether one object is left of, right of, above or below another one."""
        words = self.pick(DIRECTIONS)
        right, down = DIRECTIONS[words]
        one, two = self.rng.permutation(len(self.objects))[:2]
        first, second = self.objects[one], self.objects[two]
        (x, y), (u, v) = _cell(first), _cell(second)
        ahead = (x - u) * right + (y - v) * down
        if not ahead:
            return None
        text = f"is the {marked(first.name)} {words} the {marked(second.name)} ?"
        answer = "yes" if ahead > 0 else "no"
        return Question("relation", text, answer, (int(one), int(two)), YES_NO)


def _cell(each: Attributes) -> tuple[int, int]:
    """Return column and row of an object."""
    at = PLACES.index(each.place)
    return at % 3, at // 3


_DOMAINS = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "place": PLACES}
_FORMS: dict[str, tuple[Callable[[Asking], Question | None], ...]] = {
    "attribute": (
        lambda asking: asking.attribute("colour", ("size", "shape")),
        lambda asking: asking.attribute("shape", ("size", "colour")),
        lambda asking: asking.attribute("size", ("colour", "shape")),
        lambda asking: asking.attribute("place", ("colour", "shape")),
    ),
    "count": (
        lambda asking: asking.count("colour", COLOURS),
        lambda asking: asking.count("shape", SHAPES),
    ),
    "existence": (Asking.existence,),
    "relation": (Asking.neighbour, Asking.relation),
}
