"""Pictures of explanations: heat maps over images, panels of methods, attention by head."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.tracing import Site

if TYPE_CHECKING:
    from xai_lib.attribution import Attribution

# Perceptually even maps: relevance of one sign from dark to bright, of both signs around white.
SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"


@dataclass(frozen=True)
class Style:
    """How heat maps are drawn. opacity: of the strongest relevance; signed: show negatives too."""

    colour_map: str | None = None
    opacity: float = 0.65
    signed: bool | None = None


def displayable(
    pixels: Tensor, processor=None, bands: int | Sequence[int] | None = None
) -> np.ndarray:
    """Return normalised pixels (channels, H, W) as an RGB array (H, W, 3) in [0, 1].

    With the processor its mean and deviation are undone; without, the image's own range is used.
    bands: the channel that is shown in grey, or the three that are shown as red, green and blue.
    Without, an image of other than one or three channels is shown as their mean.
    """
    pixels = _chosen(pixels, bands)
    if processor is not None:
        image = processor.denormalize(pixels[None])[0]
    else:
        low, high = pixels.amin(), pixels.amax()
        image = (pixels - low) / (high - low).clamp(min=1e-12)
    image = image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def _chosen(pixels: Tensor, bands: int | Sequence[int] | None) -> Tensor:
    """Return the one or three channels of pixels (channels, H, W) that are shown."""
    count = len(pixels)
    if bands is None:
        return pixels if count in (1, 3) else pixels.mean(0, keepdim=True)
    chosen = [bands] if isinstance(bands, int) else list(bands)
    if len(chosen) not in (1, 3) or not all(isinstance(b, int) and 0 <= b < count for b in chosen):
        raise OptionError(
            f"bands is {bands!r}; expected a channel from 0 to {count - 1}, shown in grey, or "
            "three of them for red, green and blue."
        )
    return pixels[chosen]


def colours(heat: Tensor, style: Style = Style()) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB (H, W, 3) and strength (H, W) in [0, 1] of a heat map (H, W).

    One-signed maps are scaled from their minimum to their maximum, as the papers draw them; maps of
    both signs symmetrically around zero.
    """
    import matplotlib

    values = heat.detach().float().cpu().numpy()
    signed = style.signed if style.signed is not None else bool((values < 0).any())
    if signed:
        bound = np.abs(values).max() or 1.0
        position, strength = (values / bound + 1) / 2, np.abs(values) / bound
    else:
        span = values.max() - values.min()
        position = (values - values.min()) / (span or 1.0)
        strength = position
    name = style.colour_map or (DIVERGING if signed else SEQUENTIAL)
    return matplotlib.colormaps[name](position)[..., :3], strength


def overlay(image: np.ndarray, heat: Tensor, style: Style = Style()) -> np.ndarray:
    """Return the image with the heat map over it, more opaque where relevance is stronger."""
    rgb, strength = colours(heat, style)
    alpha = (style.opacity * (0.35 + 0.65 * strength))[..., None]
    return (1 - alpha) * image + alpha * rgb


def attribution_figure(
    att: Attribution,
    processor=None,
    style: Style = Style(),
    size: float = 2.6,
    bands: int | Sequence[int] | None = None,
):
    """Return a figure with a row per sample: the image, then its heat map per target.

    bands: which channels are shown, of images that have other than three (`displayable`).
    """
    import matplotlib.pyplot as plt

    heat, targets = att.heatmap(), att.target
    if heat.dim() == 3:
        heat, targets = heat[None], targets[None]
    count, batch = heat.shape[:2]
    figure, panels = plt.subplots(
        batch,
        count + 1,
        figsize=(size * (count + 1), size * batch),
        squeeze=False,
        layout="constrained",
    )
    for sample in range(batch):
        image = displayable(att.inputs[sample], processor, bands)
        _picture(panels[sample, 0], image, "" if sample else "input")
        for k in range(count):
            index = int(targets[k, sample])
            title = f"{att.class_name(index)}  {att.said(sample, index, 0)}"
            _picture(panels[sample, k + 1], overlay(image, heat[k, sample], style), title)
    figure.suptitle(att.method, fontsize=11)
    plt.close(figure)
    return figure


def panel(images: Mapping[str, np.ndarray], columns: int = 5, size: float = 2.1, title: str = ""):
    """Return a figure of titled pictures, left to right and top to bottom."""
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(size * columns, size * 1.12 * rows),
        squeeze=False,
        layout="constrained",
    )
    for spot in axes.flat:
        spot.axis("off")
    for spot, (name, image) in zip(axes.flat, images.items(), strict=False):
        _picture(spot, image, name)
    if title:
        figure.suptitle(title, fontsize=11)
    plt.close(figure)
    return figure


def method_panel(
    attributions: Mapping[str, Attribution],
    processor=None,
    sample: int = 0,
    columns: int = 5,
    style: Style = Style(),
    evidence: Tensor | None = None,
):
    """Return a figure comparing methods on one sample; the image comes first.

    evidence: bool (objects, H, W), where known: outlined on every picture.
    """
    first = next(iter(attributions.values()))
    image = displayable(first.inputs[sample], processor)
    pictures = {"input": image}
    for name, att in attributions.items():
        pictures[name] = overlay(image, att.heatmap()[sample], style)
    figure = panel(pictures, columns)
    if evidence is not None:
        for spot in figure.axes[: len(pictures)]:
            for mask in evidence:
                if mask.any():
                    spot.contour(mask.numpy(), levels=[0.5], colors="white", linewidths=0.9)
    return figure


def attention_panel(
    sites: Sequence[Site], grid: tuple[int, int], prefix: int, row: int = 0, sample: int = 0
):
    """Return a figure of one token's attention to the patches: a row per site, a column per head.

    sites: of a trace; row: the token that looks, 0 for the class token. Each map has its own colour
    scale.
    """
    import matplotlib.pyplot as plt

    heads = max(site.heads for site in sites)
    size = (1.1 * heads, 1.1 * len(sites))
    figure, axes = plt.subplots(
        len(sites), heads, figsize=size, squeeze=False, layout="constrained"
    )
    for line, site in zip(axes, sites, strict=True):
        line[0].set_ylabel(f"layer {site.index}", fontsize=8)
        for head, spot in enumerate(line[: site.heads]):
            patches = slice(prefix, prefix + grid[0] * grid[1])
            seen = site.probs[sample, head, row, patches].detach().float().cpu()
            spot.imshow(seen.reshape(grid).numpy(), cmap=SEQUENTIAL)
            spot.set(xticks=[], yticks=[])
    for head, spot in enumerate(axes[0]):
        spot.set_title(f"head {head}", fontsize=8)
    plt.close(figure)
    return figure


def _picture(axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(textwrap.fill(title, 24), fontsize=9)
    axes.axis("off")
