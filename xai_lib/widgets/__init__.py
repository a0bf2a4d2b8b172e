"""Widgets for notebooks, which leave a static figure where nothing can be clicked."""

from xai_lib.widgets.explorer import ImageExplorer
from xai_lib.widgets.text_explorer import TextExplorer

__all__ = ["ImageExplorer", "TextExplorer"]
