"""How a model makes patches of pixels, measured on the way to its first attention.

Which pixels is a patch computed from, and which token is it? A convolution that takes the pixels
themselves answers the first by its own arguments. Models that resize, crop, pad, flip or stack
convolutions are asked by cotangents on the last convolution's output, and one on the first
attention's values tells which tokens are the patches (`receptive_fields`); sizes would not tell a
class token from a mean of all patches, nor one order of the patches from another.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xai_lib.passes import pruned
from xai_lib.passes.receptive_fields import Convolution, exact_cells, places_of, seen_cells
from xai_lib.streams.patches import Patches, Stem
from xai_lib.streams.prepare import Inputs
from xai_lib.tracing import Trace
from xai_lib.tracing.arguments import conv_arguments
from xai_lib.tracing.ops import bare_name

_KNOWN: WeakKeyDictionary[nn.Module, dict[Hashable, Stem | None]] = WeakKeyDictionary()


def look(model: nn.Module, inputs: Inputs) -> None:
    """Note in the image's stream how the borrowed model makes patches of it.

    Measured once for a model, a size and a type of pixels, on noise; nothing is noted where the
    model has no convolution, or no attention that the image reaches.
    """
    image = next((s for s in inputs.streams if isinstance(s, Patches)), None)
    if image is None or image.stem is not None:
        return
    known = _KNOWN.setdefault(model, {})
    pixels = image.data
    key = (*pixels.shape[1:], pixels.dtype, pixels.device)
    if key not in known:
        known[key] = _measure(model, inputs, image)
    image.stem = known[key]
    if isinstance(inputs.focus, Patches):
        inputs.focus.stem = image.stem


class Reached(Exception):
    """The first attention that the pixels reach; value: what it reads of each token."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.value = value


class UntilAttention(Trace):
    """A pass that ends at the first attention that the pixels reach."""

    def _meet(self, probs: Tensor, value: Tensor) -> Tensor:
        if value.requires_grad:
            raise Reached(value)
        return super()._meet(probs, value)


class _Watch(TorchFunctionMode):
    """Notes the convolutions that the pixels reach."""

    def __init__(self):
        super().__init__()
        self.seen: list[Convolution] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if bare_name(func) == "conv2d" and isinstance(output, Tensor) and output.requires_grad:
            given, weight, _, options = conv_arguments(*args, **(kwargs or {}))
            names = ("stride", "padding", "dilation")
            steps = {name: _both(options[name]) for name in names}
            kernel = weight.shape[-2], weight.shape[-1]
            self.seen.append(Convolution(given, output, kernel, steps))
        return output


def _both(lengths: int | Iterable[int]) -> tuple[int, int]:
    first, *rest = (lengths, lengths) if isinstance(lengths, int) else tuple(lengths)
    return first, rest[0] if rest else first


def _measure(model: nn.Module, inputs: Inputs, image: Patches) -> Stem | None:
    view = _of_one_sample(inputs, image)
    pixels = next(s for s in view.streams if isinstance(s, Patches)).data
    seen = _Watch()
    devices = [pixels.device] if pixels.is_cuda else []
    try:
        with (
            torch.random.fork_rng(devices),
            torch.enable_grad(),
            pruned.traced(model),
            seen,
            UntilAttention(model),
        ):
            view.run(model)
    except Reached as reached:
        value = reached.value
    except Exception:
        # What the model refuses is told by the pass that is asked for.
        return None
    else:
        return None
    if not seen.seen:
        return None
    last = seen.seen[-1]
    rows, columns = last.output.shape[-2:]
    try:
        cells = exact_cells(last, pixels, len(seen.seen)) or seen_cells(seen.seen, pixels)
        first, ordered = places_of(seen.seen, value)
    except RuntimeError:
        # No gradient goes back here (a convolution in integers, a tensor written over).
        return None
    return Stem((rows, columns), cells, value.shape[-2], first, ordered)


def _of_one_sample(inputs: Inputs, image: Patches) -> Inputs:
    """Return a view of the first sample of every stream, its pixels noise that a graph begins at.

    Streams of other numbers of samples (texts of all images) go with it as they are.
    """
    noise = torch.Generator().manual_seed(0)
    batch = len(image.data)
    pixels = torch.randn((1, *image.data.shape[1:]), generator=noise).to(image.data)
    own = replace(image, data=pixels.requires_grad_())
    first = torch.zeros(1, dtype=torch.long)

    def one(x):
        rows = isinstance(x, Tensor) and x.dim() > 0 and len(x) == batch
        return x[:1] if rows else x

    streams = tuple(
        own if s is image else s.take(first.to(s.data.device)) if len(s.data) == batch else s
        for s in inputs.streams
    )
    # With a focus the pass takes its features from there.
    focus = own if inputs.focus is not None and not inputs.several else None
    extra = {name: one(x) for name, x in inputs.extra.items()}
    return replace(inputs, streams=streams, extra=extra, focus=focus)
