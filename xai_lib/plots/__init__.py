"""Pictures of explanations and of what was measured on them, in one style."""

from xai_lib.plots.comparison import metric_dots, planted_evidence
from xai_lib.plots.curves import insertion_deletion_curves, perturbation_curves, sanity_curves
from xai_lib.plots.matrix import agreement_matrix, differences_matrix, square
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
from xai_lib.plots.style import figure_style, look, looks

__all__ = [
    "Style",
    "agreement_matrix",
    "attention_panel",
    "attribution_figure",
    "colours",
    "differences_matrix",
    "displayable",
    "figure_style",
    "insertion_deletion_curves",
    "look",
    "looks",
    "method_panel",
    "metric_dots",
    "overlay",
    "panel",
    "perturbation_curves",
    "planted_evidence",
    "sanity_curves",
    "square",
]
