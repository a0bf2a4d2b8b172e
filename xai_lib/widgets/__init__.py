"""Widgets for notebooks, which leave a static figure where nothing can be clicked."""

from xai_lib.widgets.clip_explorer import CLIPExplorer
from xai_lib.widgets.head_explorer import HeadExplorer
from xai_lib.widgets.image_explorer import ImageExplorer
from xai_lib.widgets.text_explorer import TextExplorer
from xai_lib.widgets.vqa_explorer import VQAExplorer

__all__ = ["CLIPExplorer", "HeadExplorer", "ImageExplorer", "TextExplorer", "VQAExplorer"]
