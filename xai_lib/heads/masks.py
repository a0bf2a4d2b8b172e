"""What to prune: heads by site, read from what a user writes, and bound to one pass at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xai_lib.errors import InputError
from xai_lib.passes.pruned import PassMask
from xai_lib.tracing import HeadMask
from xai_lib.tracing.marks import state_of
from xai_lib.tracing.sites import caller_name

# A site: the number of its attention call in the pass, the name of the module that makes it (all of
# its calls), or both (name, how-manieth call of this module).
Key = int | str | tuple[str, int]
Heads = Shaped[Tensor, "..."] | Sequence[int] | Set[int] | str
# The same, once checked.
Checked = Shaped[Tensor, "..."] | list[int] | str

ADVICE = "xai.head_scores(model, inputs).table lists sites and heads."


class HeadPlan:
    """Which heads of a model are pruned: entries by site, several of which multiply.

    entries: {site: heads}. A site is a call's number, a module's name (all its calls) or (name,
    call). Heads are a list of the numbers to prune, "all", or a tensor (heads,) or (samples, heads)
    of what multiplies each head, 1 to keep and 0 to prune; width 1 counts for all heads.
    """

    def __init__(self, model: nn.Module, entries: Mapping[Key, Heads] | HeadMask):
        self.names = {id(m): name for name, m in model.named_modules()}
        if isinstance(entries, HeadMask):
            entries = _by_name(entries, self.names.values())
        if not isinstance(entries, Mapping):
            raise InputError(
                f"The mask is {type(entries).__name__}; expected HeadScores.mask(...), a HeadMask, "
                "or {site: heads to prune}, as in {'encoder.layer.0.attention.self': [1, 3]}."
            )
        # Entries that calls of parts of the model have met, outside any whole pass.
        self.met_in_parts: set[int] = set()
        self.entries = [
            (_checked_key(key, self.names.values()), _checked_heads(key, heads))
            for key, heads in entries.items()
        ]

    def with_plan(self, other: HeadPlan) -> HeadPlan:
        """Return the plan that prunes what either of two plans of one model prunes."""
        both = HeadPlan.__new__(HeadPlan)
        both.names, both.entries = self.names, [*self.entries, *other.entries]
        both.met_in_parts = set()
        return both

    def for_pass(
        self, copies: int = 1, rows: Shaped[Tensor, " rows"] | None = None, focus: str | None = None
    ) -> BoundMask:
        """Return the mask for one pass over `copies` of the batch, one after another.

        rows: the samples of the batch that the pass takes; focus: the one stream that these and the
        copies concern, or None for all.
        """
        return BoundMask(self, copies, rows, focus)

    def for_part(self) -> BoundMask:
        """Return the mask for a call of a part of the model by itself."""
        return BoundMask(self, 1, part=True)


class BoundMask(PassMask):
    """The mask of one pass: finds out which call is which site while the pass runs."""

    def __init__(
        self,
        plan: HeadPlan,
        copies: int,
        rows: Shaped[Tensor, " rows"] | None = None,
        focus: str | None = None,
        part: bool = False,
    ):
        super().__init__({})
        self.plan, self.copies, self.rows, self.focus = plan, copies, rows, focus
        self.part = part
        self._calls: Counter[str] = Counter()
        self._met: set[int] = set()
        self._alive: Tensor | None = None

    def apply(
        self, number: int, probs: Float[Tensor, "*samples_heads queries keys"]
    ) -> Float[Tensor, "*samples_heads queries keys"]:
        """Return the probabilities of attention call `number`, masked."""
        name = caller_name(self.plan.names)
        keys = (number, name, (name, self._calls[name]))
        self._calls[name] += 1
        heads = probs.shape[-3] if probs.dim() > 3 else 1
        self._check_part()
        state = state_of(probs)
        repeated = self.focus is None or state is None or state[0].name == self.focus
        factor = None
        for place, (key, wanted) in enumerate(self.plan.entries):
            if key in keys:
                self._met.add(place)
                one = _factor(key, wanted, heads).to(probs)
                if one.dim() == 2 and one.shape[0] > 1 and repeated:
                    one = (one if self.rows is None else one[self.rows]).repeat(self.copies, 1)
                factor = one if factor is None else factor * one
        alive = torch.ones((), dtype=torch.bool) if factor is None else (factor != 0).any(-1).cpu()
        self._alive = alive if self._alive is None else self._alive | alive
        if factor is None:
            return probs
        self.keep[number] = factor
        return super().apply(number, probs)

    def check(self) -> None:
        """Raise an InputError where the pass had no such site, or nothing of it was left."""
        if self.part:
            # The rest of the model may come later.
            self.plan.met_in_parts |= self._met
            return
        for place, (key, _) in enumerate(self.plan.entries):
            if place not in self._met | self.plan.met_in_parts:
                raise InputError(
                    f"The mask names the site {key!r}, and the model makes no such attention call: "
                    f"it makes {self._calls.total()}, in {_few(list(self._calls))}. {ADVICE}"
                )
        if self._alive is not None and not self._alive.all():
            raise InputError(
                "The mask prunes every head of every site, so that no token sees another. Leave at "
                "least one head."
            )

    def _check_part(self) -> None:
        number = next((key for key, _ in self.plan.entries if isinstance(key, int)), None)
        if self.part and number is not None:
            raise InputError(
                f"The mask names attention call {number}, which is counted from the start of the "
                "model's forward pass, and a part of the model is called by itself (as by generate "
                "or get_image_features). Name modules instead: {name: heads}, or "
                "HeadScores.mask(...), which does."
            )


def _by_name(mask: HeadMask, names) -> dict[Key, Tensor]:
    """Return what a mask keeps by modules of this model, by number where they are not known."""
    known = all(place[0] in names for place in mask.places.values())
    return {(mask.places.get(n, n) if known else n): kept for n, kept in mask.keep.items()}


def _checked_key(key, names) -> Key:
    name = key[0] if isinstance(key, tuple) and len(key) == 2 else key
    number = key[1] if isinstance(key, tuple) and len(key) == 2 else key
    fits = isinstance(name, str) and (key is name or _is_count(number))
    if not fits and not _is_count(key):
        raise InputError(
            f"The mask names the site {key!r}; expected a module's name, (name, call), or the "
            f"number of an attention call. {ADVICE}"
        )
    if isinstance(name, str) and name not in names:
        near = get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise InputError(
            f"The mask names the site {name!r}, no module of the model. {hint}{ADVICE}"
        )
    return key


def _is_count(x) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


def _checked_heads(key: Key, heads: object) -> Checked:
    if isinstance(heads, Tensor):
        if heads.dim() not in (1, 2) or not heads.numel():
            raise InputError(
                f"The mask of {key!r} has shape {tuple(heads.shape)}; expected (heads,) or "
                "(samples, heads)."
            )
        values = heads.detach().float()
        if not ((values >= 0) & (values <= 1)).all():
            raise InputError(
                f"The mask of {key!r} has values outside 0 to 1; 1 keeps a head and 0 prunes it."
            )
        return heads.detach().clone()
    if isinstance(heads, str) and heads == "all":
        return heads
    if isinstance(heads, str) or not isinstance(heads, Sequence | Set):
        raise InputError(
            f"The mask of {key!r} is {heads!r}; expected a list of heads to prune, 'all', or a "
            "tensor that multiplies the heads."
        )
    heads = sorted(heads)
    if not all(_is_count(h) for h in heads):
        raise InputError(f"The mask of {key!r} is {heads!r}; expected numbers of heads, from 0 on.")
    return heads


def _factor(key: Key, wanted: Checked, heads: int) -> Tensor:
    """Return what multiplies the heads of a site."""
    if isinstance(wanted, Tensor):
        if wanted.shape[-1] not in (1, heads):
            raise InputError(
                f"The mask of {key!r} has shape {tuple(wanted.shape)}, and the site has {heads} "
                f"heads: expected ({heads},) or (samples, {heads}), or 1 in place of the heads."
            )
        return wanted
    if isinstance(wanted, str):
        # "all": no other word is let through.
        return torch.zeros(1)
    if wanted and wanted[-1] >= heads:
        raise InputError(
            f"The mask prunes head {wanted[-1]} of {key!r}, which has {heads}: expected 0 to "
            f"{heads - 1}."
        )
    keep = torch.ones(heads)
    keep[wanted] = 0
    return keep


def _few(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:4]))
    return f"{shown} and {len(names) - 4} more modules" if len(names) > 4 else shown
