"""The forms in which a model lets attention probabilities meet its values, brought into one.

A site has probabilities (samples, heads, queries, keys). Models also keep samples and heads in one
dimension, multiply from the right (Vᵀ Aᵀ), name dimensions in an einsum, or have one head and no
dimension for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Bool, Shaped
from torch import Tensor

from xai_lib.tracing.marks import FOLDED, leave

# How far the shares of a query may be from adding up to 1, in any dtype.
SLACK = 2e-2


@dataclass(frozen=True)
class Form:
    """The order of dimensions in an einsum: (samples, heads, queries, keys) and so on.

    Letters, as the equation names them; lead holds the samples' and the heads', if there are heads.
    """

    probs: str
    value: str
    output: str
    lead: str
    query: str
    key: str
    feature: str

    @classmethod
    def of(cls, probs: str, value: str, output: str) -> Form | None:
        """Return the form of `probs,value->output`, None where it is no attention."""
        names = (probs, value, output)
        if any(len(set(x)) != len(x) or not x.isalpha() for x in names):
            return None
        lead = "".join(x for x in probs if x in value and x in output)
        key = "".join(x for x in probs if x in value and x not in output)
        query = "".join(x for x in probs if x in output and x not in value)
        feature = "".join(x for x in value if x in output and x not in probs)
        fits = len(key) == len(query) == len(feature) == 1 and 1 <= len(lead) <= 2
        complete = len(probs) == len(value) == len(output) == len(lead) + 2
        if not fits or not complete:
            return None
        return cls(probs, value, output, lead, query, key, feature)

    def led_by(self, samples: int | None, sizes: dict[str, int]) -> Form:
        """Return this form with the dimension of so many samples before that of the heads.

        Where both are as long, samples are what the output begins with.
        """
        if len(self.lead) < 2:
            return self
        first, second = self.lead
        fits = [name for name in self.lead if sizes[name] == samples] or [first, second]
        chosen = fits[0] if len(fits) == 1 or self.output[0] not in fits else self.output[0]
        return replace(self, lead=chosen + (second if chosen == first else first))

    def arranged(
        self, probs: Shaped[Tensor, "..."], value: Shaped[Tensor, "..."]
    ) -> tuple[Shaped[Tensor, "... queries keys"], Shaped[Tensor, "... keys dim"]]:
        """Return both operands with their dimensions in order."""
        return (
            _ordered(probs, self.probs, self.lead + self.query + self.key),
            _ordered(value, self.value, self.lead + self.key + self.feature),
        )

    def restored(self, output: Shaped[Tensor, "... queries dim"]) -> Shaped[Tensor, "..."]:
        """Return the product in the order that the model asked for."""
        return _ordered(output, self.lead + self.query + self.feature, self.output)


def form_of(equation: str) -> tuple[str, str, str] | None:
    """Return the letters of both operands and the output of an equation; None of other kinds."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    return (operands[0], operands[1], output) if arrow and len(operands) == 2 else None


def _ordered(x: Tensor, names: str, wanted: str) -> Tensor:
    return x.permute([names.index(name) for name in wanted])


def adds_up(x: Shaped[Tensor, "..."], dim: int) -> bool:
    """Whether x are shares along `dim`: they add up to 1, or to 0 where nothing may be seen."""
    total = x.detach().float().sum(dim)
    return bool((_near(total, 1) | _near(total, 0)).all()) and bool(_near(total, 1).any())


def _near(x: Tensor, number: float) -> Bool[Tensor, "..."]:
    return (x - number).abs() < SLACK


def note_folding(name: str, output: Shaped[Tensor, "..."], args: tuple) -> None:
    """Note where an operation put two leading dimensions of a tensor into one."""
    x = args[0] if args else None
    if name not in ("reshape", "view", "flatten") or not isinstance(x, Tensor) or x.dim() != 4:
        return
    if output.shape == (x.shape[0] * x.shape[1], *x.shape[2:]):
        leave(output, FOLDED, (x.shape[:2], x.stride()[:2]))


def heads_first(value: Shaped[Tensor, "rows ..."], samples: int | None) -> bool:
    """Whether the rows of values go by heads and, within these, by samples.

    Where there are as many heads as samples, what lies further apart in memory are the samples.
    """
    folding = getattr(value, FOLDED, None)
    if samples is None or folding is None or folding[0][1] != samples:
        return False
    shape, strides = folding
    return shape[0] != samples or strides[0] < strides[1]


def folded_heads(value: Shaped[Tensor, "rows keys dim"], samples: int | None) -> int:
    """Return how many heads share the rows with the samples: 1 where nothing tells of more."""
    rows = value.shape[0]
    if samples is not None:
        return rows // samples if rows % samples == 0 else 1
    folding = getattr(value, FOLDED, None)
    return folding[0][1] if folding is not None and folding[0].numel() == rows else 1
