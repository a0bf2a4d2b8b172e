"""Widgets for notebooks, which leave a static figure where nothing can be clicked."""

from xai_lib.widgets.explorer import ImageExplorer

__all__ = ["ImageExplorer"]
