"""Reports: figures and tables of the notebooks, and the pages that papermill renders from them."""

from xai_lib.reporting.artifacts import Table, save_figure, save_table
from xai_lib.reporting.published import beside, published, published_curves
from xai_lib.reporting.tables import PaperTable, directions, paper_table
from xai_lib.statistics.ranks import Ranking, by_method, ranking

__all__ = [
    "PaperTable",
    "Ranking",
    "Table",
    "beside",
    "by_method",
    "directions",
    "paper_table",
    "published",
    "published_curves",
    "ranking",
    "save_figure",
    "save_table",
]
