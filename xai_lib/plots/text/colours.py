"""The colours of scored text: red for, blue against, white for zero, and ink that stands out."""

from __future__ import annotations

# Ends of the scale (ColorBrewer's RdBu): white is zero, so that a score of nothing has no colour.
FOR, AGAINST = (178, 24, 43), (33, 102, 172)
DARK, LIGHT = (0, 0, 0), (255, 255, 255)
# Bars of the class that is explained and of the others, as in `xai.widgets`.
CHOSEN, OTHER, INK = "#c2410c", "#94a3b8", "#1e293b"

RGB = tuple[int, int, int]


def colour(strength: float) -> RGB:
    """Return the background for a strength in [-1, 1]: blue, white at zero, red."""
    end, share = (FOR if strength > 0 else AGAINST), min(abs(strength), 1.0)
    return tuple(round(255 + share * (channel - 255)) for channel in end)


def ink(background: RGB) -> RGB:
    """Return black or white, whichever stands out more; one of them always does by 4.5 : 1."""
    return DARK if contrast(DARK, background) >= contrast(LIGHT, background) else LIGHT


def contrast(a: RGB, b: RGB) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.1, definition of contrast)."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def as_hex(rgb: RGB) -> str:
    """Return a colour as pages and terminals name it."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _luminance(rgb: RGB) -> float:
    parts = (c / 255 for c in rgb)
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
