"""What reports are made of: statistics with intervals, numbers as text, tables, figures, and one self-contained page.

`write_page` renders a template of ``templates/`` with `Table`, `Picture` and plain values; every text is escaped.
"""

from captum_alignment.study.page._images import gallery_figure
from captum_alignment.study.page._page import Picture, picture, write_page
from captum_alignment.study.page._panels import (
    SPLIT,
    Cloud,
    link_axes,
    link_panel,
    profile_panels,
    scatter_panels,
    terms_panel,
    upto,
)
from captum_alignment.study.page._statistics import (
    LEVEL,
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
from captum_alignment.study.page._text import between, class_name, fixed, number, setting

__all__ = [
    "BLUE",
    "GREEN",
    "INK",
    "LEVEL",
    "MUTED",
    "ORANGE",
    "PINK",
    "SPLIT",
    "STYLE",
    "VERMILION",
    "WIDTH",
    "Array",
    "Cloud",
    "Column",
    "Picture",
    "Table",
    "between",
    "bootstrap_medians",
    "bootstrap_spearman",
    "class_name",
    "count",
    "fixed",
    "gallery_figure",
    "interval",
    "labels",
    "link_axes",
    "link_panel",
    "mean_interval",
    "median",
    "number",
    "percent",
    "picture",
    "plain",
    "points",
    "profile_panels",
    "resample",
    "run_style",
    "scatter_panels",
    "setting",
    "spearman",
    "spearman_interval",
    "terms_panel",
    "upto",
    "wilson",
    "write_page",
]
