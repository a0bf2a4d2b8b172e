"""Reports: figures and tables of the notebooks, and the pages that papermill renders from them."""

from xai_lib.reporting.artifacts import Table, save_figure, save_table
from xai_lib.reporting.published import beside, published
from xai_lib.reporting.tables import PaperTable, directions, paper_table

__all__ = [
    "PaperTable",
    "Table",
    "beside",
    "directions",
    "paper_table",
    "published",
    "save_figure",
    "save_table",
]
