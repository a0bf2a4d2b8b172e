"""Reports: figures and tables of the notebooks, and the pages that papermill renders from them."""

from xai_lib.reporting.artifacts import Table, save_figure, save_table

__all__ = ["Table", "save_figure", "save_table"]
