"""The fonts that glyphs are taken from, and which characters none of them has."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

# Where DejaVu Sans has no glyph, in this order, as far as they are installed.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Emoji", "Noto Sans Symbols 2", "Noto Sans", "Segoe UI",
    "Segoe UI Symbol", "Segoe UI Emoji", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Nirmala UI", "Hiragino Sans", "PingFang SC", "Apple Symbols", "Arial Unicode MS",
    "WenQuanYi Zen Hei", "Symbola", "Unifont",
)  # fmt: skip
MISSING = "\u25a1"


@lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """Return the fonts to take glyphs from, first one first; matplotlib brings DejaVu Sans."""
    from matplotlib import font_manager

    names = {entry.name for entry in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in FALLBACKS if name in names))


def drawable(text: str) -> str:
    """Return text whose every character some font has; empty squares stand for the others."""
    return "".join(c if c.isspace() or ord(c) in _glyphs() else _without_glyph(c) for c in text)


def _without_glyph(character: str) -> str:
    # Marks that only shape their neighbours leave nothing behind.
    return "" if unicodedata.category(character) in ("Cf", "Mn", "Me") else MISSING


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    found: set[int] = set()
    for name in families():
        try:
            path = font_manager.findfont(name, fallback_to_default=False)
            found |= set(font_manager.get_font(path).get_charmap())
        except (RuntimeError, OSError, ValueError):
            # Such as a font of coloured bitmaps, which matplotlib cannot open.
            continue
    return frozenset(found)
