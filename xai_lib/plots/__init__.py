"""Pictures of explanations and of what was measured on them, in one style."""

from xai_lib.plots.comparison import metric_dots, planted_evidence
from xai_lib.plots.curves import insertion_deletion_curves, perturbation_curves, sanity_curves
from xai_lib.plots.heads import head_score_map
from xai_lib.plots.matrix import agreement_matrix, differences_matrix, square
from xai_lib.plots.pairs import pair_figure
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
from xai_lib.plots.pruning import pruned_visualisation, pruning_curves
from xai_lib.plots.regions import region_figure, region_map, regions_figure
from xai_lib.plots.signs import Sign, sign_note, sign_of
from xai_lib.plots.style import figure_style, look, looks
from xai_lib.plots.text.figure import text_figure
from xai_lib.plots.text.heatmap import TextHeatmap
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.latex import text_latex
from xai_lib.plots.text.rows import TextRow, attribution_texts, rationale_row
from xai_lib.plots.text.terminal import terminal_line
from xai_lib.plots.text_curves import (
    rationale_curves,
    text_perturbation_curves,
    word_deletion_curves,
)
from xai_lib.plots.word_statistics import (
    initialisation_scatter,
    rank_table_figure,
    word_means_grid,
)

__all__ = [
    "Sign",
    "Style",
    "TextHeatmap",
    "TextRow",
    "agreement_matrix",
    "attention_panel",
    "attribution_figure",
    "attribution_texts",
    "colours",
    "differences_matrix",
    "displayable",
    "figure_style",
    "head_score_map",
    "initialisation_scatter",
    "insertion_deletion_curves",
    "look",
    "looks",
    "method_panel",
    "metric_dots",
    "overlay",
    "pair_figure",
    "panel",
    "perturbation_curves",
    "planted_evidence",
    "pruned_visualisation",
    "pruning_curves",
    "rank_table_figure",
    "rationale_curves",
    "rationale_row",
    "region_figure",
    "region_map",
    "regions_figure",
    "sanity_curves",
    "sign_note",
    "sign_of",
    "square",
    "terminal_line",
    "text_figure",
    "text_html",
    "text_latex",
    "text_perturbation_curves",
    "word_deletion_curves",
    "word_means_grid",
]
