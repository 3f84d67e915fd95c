"""What reports are made of: statistics with intervals, numbers as text, tables, figures, and one self-contained page.

`write_page` renders a template of ``templates/`` with `Table`, `Picture` and plain values; every text is escaped.
"""

from captum_alignment.study.page._estimates import Estimate, holm, over_trainings, over_trainings_and_samples
from captum_alignment.study.page._images import gallery_figure, show_image, show_signed
from captum_alignment.study.page._page import Picture, picture, write_page
from captum_alignment.study.page._statistics import (
    PERCENT,
    Array,
    bootstrap_medians,
    bootstrap_spearman,
    interval,
    mean_interval,
    median,
    resample,
    spearman,
    spearman_interval,
    wilson,
)
from captum_alignment.study.page._style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PINK,
    STYLE,
    VERMILION,
    WIDTH,
    labels,
    plain,
    run_style,
)
from captum_alignment.study.page._tables import Column, Table, count, percent, points
from captum_alignment.study.page._text import between, class_name, counted, fixed, number, p_value, setting

__all__ = [
    "BLUE",
    "GREEN",
    "INK",
    "MUTED",
    "ORANGE",
    "PERCENT",
    "PINK",
    "STYLE",
    "VERMILION",
    "WIDTH",
    "Array",
    "Column",
    "Estimate",
    "Picture",
    "Table",
    "between",
    "bootstrap_medians",
    "bootstrap_spearman",
    "class_name",
    "count",
    "counted",
    "fixed",
    "gallery_figure",
    "holm",
    "interval",
    "labels",
    "mean_interval",
    "median",
    "number",
    "over_trainings",
    "over_trainings_and_samples",
    "p_value",
    "percent",
    "picture",
    "plain",
    "points",
    "resample",
    "run_style",
    "setting",
    "show_image",
    "show_signed",
    "spearman",
    "spearman_interval",
    "wilson",
    "write_page",
]
