"""Pictures of explanations and of what was measured on them, in one style."""

from xai_lib.plots.pictures import (
    Style,
    attention_panel,
    attribution_figure,
    colours,
    displayable,
    method_panel,
    overlay,
    panel,
)

__all__ = [
    "Style",
    "attention_panel",
    "attribution_figure",
    "colours",
    "displayable",
    "method_panel",
    "overlay",
    "panel",
]
