"""Image regions with what each counts: boxes in colour, or the image seen through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.files.images import ImageLike, read_image
from xai_lib.plots.sheet import Band, Panel, sheet
from xai_lib.plots.style import DOUBLE, SINGLE, SMALL, styled
from xai_lib.plots.text.colours import AGAINST, FOR, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xai_lib.attribution import Attribution

MODES = ("boxes", "masked")
# A canvas for regions of an unknown image: height and width, in dots.
BLANK = (240, 320)
# Dots of the fill of boxes, and how opaque it is where a region counts most.
FILL, FILLED = (240, 240), 0.42
# What is left of the light where no region counts.
DARKEST = 0.12


@styled
def region_figure(
    image: ImageLike | None,
    boxes,
    relevance,
    present=None,
    *,
    mode: str = "boxes",
    top: int = 3,
    title: str = "",
    width: float = SINGLE,
) -> Figure:
    """Return a figure of an image with the regions of a detector and what each counts.

    image: see `read_image`, or None for a blank canvas. boxes: (regions, 4), x0, y0, x1, y1 in
    parts of the image's width and height. relevance: (regions,). present: bool (regions,), False
    for padding, which is not drawn. mode "boxes": outlines and fill are the stronger the more a
    region counts, red for and blue against; the `top` strongest have their rank. mode "masked": the
    image times `region_map`, as the published analysis draws it. Raises InputError, OptionError.
    """
    panel = region_panel(title, image, boxes, relevance, present, mode=mode, top=top)
    return sheet([Band([panel], height=(width - 0.2) / panel.aspect)], width=width)


@styled
def regions_figure(
    att: Attribution,
    images: Sequence | None = None,
    boxes=None,
    *,
    mode: str = "boxes",
    top: int = 3,
    width: float = DOUBLE,
) -> Figure:
    """Return a figure of the regions alone: of `att.part("image")` where these are regions.

    As `pair_figure`. Raises InputError where nobody knows the boxes.
    """
    boxes = att.layout.boxes if boxes is None else boxes
    if boxes is None or len(boxes) != len(att.logits):
        raise InputError(
            f"boxes is {'None' if boxes is None else f'of {len(boxes)} samples'}; expected "
            f"(samples, regions, 4) for {len(att.logits)} samples."
        )
    targets = att.target.reshape(-1, len(att.logits))
    scores = att.relevance.reshape(-1, *att.relevance.shape[-2:])
    bands = []
    for i in range(len(att.logits)):
        image, present = None if images is None else images[i], att.layout.present[i]
        bands.append(Band([
            region_panel(att.class_name(int(target)), image, boxes[i], row, present,
                         mode=mode, top=top)
            for target, row in zip(targets[:, i], scores[:, i], strict=True)
        ]))  # fmt: skip
    return sheet(bands, att.method, width)


def region_panel(
    title: str,
    image,
    boxes,
    relevance,
    present=None,
    *,
    mode: str = "boxes",
    top: int = 3,
    note: str = "",
) -> Panel:
    """Return a panel of an image with its regions; see `region_figure`."""
    boxes, relevance = checked_regions(boxes, relevance, present)
    picture = rgb(image)
    high = float(relevance.abs().max())
    low = -high if (relevance < 0).any() else 0.0
    shades = (colour(s) for s in np.linspace(-1 if low else 0, 1, 64))
    if mode == "masked":
        shades = ((round(255 * share),) * 3 for share in np.linspace(DARKEST, 1, 64))
        low = float(region_map(boxes, relevance, picture.shape[:2]).abs().min())
    ramp = np.array(list(shades)) / 255

    def draw(axes: Axes) -> None:
        draw_regions(axes, picture, boxes, relevance, mode, top)

    return Panel(title, draw, picture.shape[1] / picture.shape[0], note, ramp, low, high)


def region_map(boxes, relevance, size: tuple[int, int]) -> Tensor:
    """Return what each pixel counts, (H, W): the most of the regions that hold it, 0 outside all.

    The most is by magnitude, so that a region against the answer is seen inside one for it.
    """
    boxes, relevance = checked_regions(boxes, relevance)
    height, width = size
    found = torch.zeros(height, width)
    for place in relevance.abs().argsort(stable=True).tolist():
        x0, y0, x1, y1 = (boxes[place] * torch.tensor([width, height] * 2)).tolist()
        # A thin box still covers a pixel.
        rows = slice(int(y0), max(round(y1), int(y0) + 1))
        found[rows, int(x0) : max(round(x1), int(x0) + 1)] = relevance[place]
    return found


def checked_regions(boxes, relevance, present=None) -> tuple[Tensor, Tensor]:
    """Return boxes (regions, 4) and relevance (regions,) of what is no padding. Raises InputError.

    Boxes are cut to the image.
    """
    boxes, relevance = (torch.as_tensor(x).detach().float().cpu() for x in (boxes, relevance))
    if boxes.dim() != 2 or boxes.shape[1] != 4 or relevance.shape != boxes.shape[:1]:
        raise InputError(
            f"boxes has shape {tuple(boxes.shape)} and relevance {tuple(relevance.shape)}; "
            "expected (regions, 4) and (regions,)."
        )
    if present is not None:
        present = torch.as_tensor(present).bool().cpu()
        if present.shape != relevance.shape:
            raise InputError(
                f"present has shape {tuple(present.shape)}; expected {tuple(relevance.shape)}."
            )
        boxes, relevance = boxes[present], relevance[present]
    if not len(boxes):
        raise InputError("There is no region to draw: all are padding.")
    if not boxes.isfinite().all() or boxes.max() > 1.001 or boxes.min() < -0.001:
        raise InputError(
            f"boxes reaches from {boxes.min():g} to {boxes.max():g}; expected x0, y0, x1, y1 in "
            "parts of the image: divide x by its width and y by its height."
        )
    if not relevance.isfinite().all():
        raise InputError("The relevance of a region is not finite.")
    return boxes.clamp(0, 1), relevance


def rgb(image: ImageLike | None) -> np.ndarray:
    """Return an image as RGB (H, W, 3) in [0, 1]; a pale canvas for None."""
    if image is None:
        return np.full((*BLANK, 3), 0.965)
    found = read_image(image)
    if isinstance(found, Tensor):
        return found.clamp(0, 1).permute(1, 2, 0).numpy()
    return np.asarray(found, dtype=np.float64) / 255


def draw_regions(
    axes: Axes, image: np.ndarray, boxes: Tensor, relevance: Tensor, mode: str, top: int
) -> None:
    """Draw an image (H, W, 3) with checked regions; see `region_figure`."""
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if not isinstance(top, int) or isinstance(top, bool) or top < 0:
        raise OptionError(f"top is {top!r}; expected how many regions get their rank, 0 or more.")
    height, width = image.shape[:2]
    if mode == "masked":
        image = image * _light(region_map(boxes, relevance, (height, width)))
    axes.imshow(image, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    corners = boxes.numpy() * [width, height, width, height]
    bound = float(relevance.abs().max()) or 1.0
    order = relevance.abs().argsort(descending=True, stable=True).tolist()
    ranked = [place for place in order[:top] if relevance[place] != 0]
    if mode == "boxes":
        # One fill for all: boxes over one another would look as if they counted more.
        heat = region_map(boxes, relevance, FILL) / bound
        shades = np.array([[_shade(s) for s in row] for row in heat.tolist()])
        shades = np.concatenate([shades, FILLED * heat.abs().numpy()[..., None]], -1)
        axes.imshow(shades, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    for place in reversed(order if mode == "boxes" else ranked):
        _frame(axes, corners[place], float(relevance[place]) / bound)
    _ranks(axes, corners[ranked], relevance[ranked].tolist(), (width, height))


def _light(heat: Tensor) -> np.ndarray:
    """Return how bright each pixel stays, (H, W, 1), from DARKEST to 1."""
    strength = heat.abs().numpy()
    low, high = strength.min(), strength.max()
    # Equal everywhere: all of it counts, or nothing does.
    share = (strength - low) / (high - low) if high > low else np.full_like(strength, high > 0)
    return (DARKEST + (1 - DARKEST) * share)[..., None]


def _shade(strength: float) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in (FOR if strength >= 0 else AGAINST))


def _frame(axes: Axes, corners, strength: float) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    x0, y0, x1, y1 = corners
    share = abs(strength)
    line = 0.5 + 1.4 * share
    frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=line,
                      edgecolor=_shade(strength), alpha=0.25 + 0.75 * share)  # fmt: skip
    # White beside the line: it stands out on any image, also on a red one.
    halo = Stroke(linewidth=line + 1.2, foreground="white", alpha=0.15 + 0.7 * share)
    frame.set_path_effects([halo, Normal()])
    axes.add_patch(frame)


def _ranks(axes: Axes, corners: np.ndarray, relevance: list[float], size: tuple[int, int]) -> None:
    """Write ranks from 1 at a corner of each box, where no other rank stands."""
    box = axes.get_window_extent()
    # A badge's side in the image's dots, whatever size the picture has.
    inch = axes.figure.dpi
    side = np.array([size[0] * 0.15 * inch / box.width, size[1] * 0.15 * inch / box.height])
    taken: list[np.ndarray] = []
    for rank, ((x0, y0, x1, y1), value) in enumerate(zip(corners, relevance, strict=True), 1):
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        places = [(x0, y0), (x1, y0), (x0, y1), (x1, y1), (x, y0), (x0, y), (x, y1), (x1, y)]
        places = [np.clip(p, side / 2, np.array(size) - side / 2) for p in places]
        free = (p for p in places if all((abs(p - t) > side).any() for t in taken))
        place = next(free, None)
        if place is None:
            continue
        taken.append(place)
        axes.text(*place, str(rank), fontsize=SMALL, color="white", weight="bold", ha="center",
                  va="center_baseline", bbox={"boxstyle": "circle,pad=0.12", "linewidth": 0.6,
                  "facecolor": _shade(value), "edgecolor": "white"})  # fmt: skip
