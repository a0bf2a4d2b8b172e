"""What every measured figure must hold: nothing overlaps, nothing is cut off, all is legible."""

from itertools import combinations

import numpy as np
from matplotlib.text import Text


def drawn_texts(figure):
    """Return the texts that a saved figure shows."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                inside = low - 1e-9 <= tick.get_loc() <= high + 1e-9
                if not (axes.axison and inside and tick.get_visible()):
                    hidden |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text not in hidden]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def outline(text):
    """Return the corners (4, 2) of the text's rectangle in pixels, turned as the text is."""
    angle, turned = text.get_rotation(), text.get_window_extent()
    centre = np.array([turned.x0 + turned.x1, turned.y0 + turned.y1]) / 2
    text.set_rotation(0)
    flat = text.get_window_extent()
    text.set_rotation(angle)
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    half = np.array([flat.width, flat.height]) / 2
    return centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half @ turn


def overlap(a, b, slack=1.0):
    """Say whether two rectangles share more than `slack` pixels in every direction."""
    for corners in (a, b):
        for side in (corners[1] - corners[0], corners[2] - corners[1]):
            direction = side / (np.linalg.norm(side) or 1)
            first, second = a @ direction, b @ direction
            if min(first.max(), second.max()) - max(first.min(), second.min()) <= slack:
                return False
    return True


def check_legible(figure, smallest=7.0):
    """Fail where texts overlap, leave the figure, or are smaller than `smallest` points in print.

    Print is one or two columns (3.3 or 6.9 inches); saving adds a margin of a tenth of an inch.
    """
    texts = drawn_texts(figure)
    assert len(texts) > 5, "there is hardly a text to check"
    width = figure.get_size_inches()[0]
    assert any(np.isclose(width, column) for column in (3.3, 6.9)), width
    for text in texts:
        assert text.get_fontsize() * width / (width + 0.2) >= smallest, text
    boxes = [outline(text) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        inside = (box >= -1).all() and (box <= np.array(figure.bbox.size) + 1).all()
        assert inside, f"{text.get_text()!r} is cut off"
    wrong = [
        (a.get_text(), b.get_text())
        for (a, first), (b, second) in combinations(zip(texts, boxes, strict=True), 2)
        if overlap(first, second)
    ]
    assert not wrong, f"{len(wrong)} pairs of texts overlap: {wrong[:5]}"
