"""What measured figures share: checked frames, panels by group, axis labels, legends as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from pandas import DataFrame

from xai_lib.errors import InputError, unknown_name
from xai_lib.plots.style import SMALL, looks

# Inches: one line of small text, a sample of a line, the space between two columns.
LINE_HEIGHT, SAMPLE, GAP = 0.145, 0.3, 0.2

# Axis label of a metric, with its unit; any other metric is called by its name.
METRICS = {
    "pixel_accuracy": "pixel accuracy (%)",
    "mIoU": "mean IoU (%)",
    "mAP": "mean AP (%)",
    "mF1": "mean F1 (%)",
    "auc_cvpr21": "AUC, CVPR'21 (%)",
    "auc_tmlr23": "AUC, TMLR'23 (%)",
    "auc": "AUC (%)",
    "mean_log_odds": "mean log-odds",
    "mean_probability_change": "mean change of probability",
    "pointing_game": "pointing game (%)",
    "relevance_mass": "relevance mass (%)",
    "relevance_rank": "relevance rank accuracy (%)",
    "prediction_kept": "prediction kept (%)",
}

TITLES = {
    "predicted": "predicted class",
    "target": "target class",
    "rank_correlation_abs": "rank correlation of magnitudes",
    "ssim": "SSIM",
}


def metric_label(metric: str, labels: Mapping[str, str] | None = None) -> str:
    """Return the axis label of a metric: from `labels`, else as known, else its name in words."""
    known = METRICS | dict(labels or {})
    return known.get(metric, metric.replace("_", " "))


def check_frame(frame: DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise an InputError where `frame` is no table, lacks one of `columns`, or has no row."""
    if not isinstance(frame, DataFrame):
        raise InputError(f"{what} is a {type(frame).__name__}; expected a pandas DataFrame.")
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(
            f"{what} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}. "
            f"Expected the columns {', '.join(columns)}."
        )
    if not len(frame):
        raise InputError(f"{what} has no row, so there is nothing to draw.")


def settings(frame: DataFrame, columns: Sequence[str]) -> dict[tuple, DataFrame]:
    """Return the rows of each combination of `columns` in order of appearance; () for none."""
    if not columns:
        return {(): frame}
    return dict(iter(frame.groupby(list(columns), sort=False, dropna=False)))


def check_one_row_each(frame: DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise an InputError where two rows agree in all of `columns`: they would be drawn as one."""
    double = frame[frame.duplicated(list(columns))]
    if len(double):
        row = dict(double.iloc[0][list(columns)])
        other = [name for name in frame if name not in {*columns, "value", "low", "high", "n"}]
        raise InputError(
            f"{what} has several rows for {row}; expected one. "
            f"Choose one setting of: {', '.join(map(str, other)) or 'the groups'}."
        )


def choose_metrics(summary: DataFrame, metrics: Sequence[str] | None) -> DataFrame:
    """Return the rows of `metrics` in that order, of all for None."""
    if metrics is None:
        return summary
    for metric in metrics:
        if metric not in set(summary["metric"]):
            raise unknown_name("metric", metric, set(summary["metric"]))
    place = {metric: number for number, metric in enumerate(metrics)}
    kept = summary[summary["metric"].isin(place)]
    return kept.sort_values("metric", key=lambda names: names.map(place), kind="stable")


def column_count(panels: int) -> int:
    """Return how many panels stand side by side."""
    return 2 if panels == 4 else min(panels, 3)


def heading(setting: Sequence[object], between: str = ", ") -> str:
    """Return the title of a panel from the values of its groups."""
    return between.join(TITLES.get(name, str(name).replace("_", " ")) for name in setting)


def wrapped(label: str, width: int = 24) -> str:
    """Return a method's label broken at its options where it is longer than `width`."""
    return label if len(label) <= width else label.replace(":", ":\n")


def line_count(text: str) -> int:
    """Return the number of lines of `text`."""
    return text.count("\n") + 1


def text_width(text: str, size: float = SMALL) -> float:
    """Return the width in inches of the longest line of `text`."""
    from matplotlib.textpath import TextPath

    lines = [line for line in text.split("\n") if line.strip()]
    ends = (TextPath((0, 0), line, size=size).get_extents().x1 for line in lines)
    return max(ends, default=0.0) / 72


def legend_height(labels: Sequence[str], heads: Iterable[str]) -> float:
    """Return the height in inches of a `legend_table`."""
    lines = sum(line_count(wrapped(label)) for label in labels)
    return LINE_HEIGHT * (lines + max(map(line_count, heads), default=0) + 0.7)


def legend_width(labels: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> float:
    """Return the width in inches of a `legend_table`."""
    return sum(_widths(labels, columns)) + SAMPLE


def legend_table(axes, labels: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> None:
    """Fill empty `axes` with a legend: a sample of each label's line, its name, its numbers.

    columns: heading to the text of each label. Coordinates are inches, so set the place of the axes
    first, at least `legend_width` wide and `legend_height` high.
    """
    box = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    left = -(box.width - legend_width(labels, columns)) / 2
    axes.set(xlim=(left, left + box.width), ylim=(-box.height, 0))
    axes.axis("off")

    def write(text: str, x: float, y: float, side: str, colour: str = "black") -> None:
        # Line by line: the baseline of a text of several lines is that of its last.
        for number, line in enumerate(text.split("\n")):
            place = y - number * LINE_HEIGHT
            axes.text(x, place, line, ha=side, va="baseline", color=colour, fontsize=SMALL)

    rights = list(accumulate(_widths(labels, columns), initial=SAMPLE))[2:]
    y = -1.1 * LINE_HEIGHT
    for head, x in zip(columns, rights, strict=True):
        write(head, x, y, "right", "#444444")
    y -= LINE_HEIGHT * max(map(line_count, columns), default=0)
    drawn = looks(labels)
    for label in labels:
        line = [y + 0.25 * LINE_HEIGHT] * 3
        axes.plot([0, SAMPLE / 2, SAMPLE], line, markevery=[1], **drawn[label].curve())
        write(wrapped(label), SAMPLE + 0.1, y, "left")
        for cells, x in zip(columns.values(), rights, strict=True):
            write(cells.get(label, ""), x, y, "right")
        y -= LINE_HEIGHT * line_count(wrapped(label))


def _widths(labels: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> list[float]:
    """Return the widths of the names and of each column, with the space before it."""
    names = max(text_width(wrapped(label)) for label in labels) + 0.1
    texts = ([head, *cells.values()] for head, cells in columns.items())
    return [names, *(max(map(text_width, column)) + GAP for column in texts)]
