"""The figures of the diagnosis: the exact split, the terms of the margin, and how straight it falls."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.cohort._diagnosis import link, profiles, term_shares
from captum_alignment.study.cohort._figures import band, strength_axis
from captum_alignment.study.evaluation import BACK, FORWARD, INPUT
from captum_alignment.study.fit import LAYERS
from captum_alignment.study.page import (
    MUTED,
    SPLIT,
    STYLE,
    WIDTH,
    Array,
    interval,
    link_axes,
    link_panel,
    median,
    profile_panels,
    terms_panel,
)


def split_figure(cohort: Cohort) -> Figure:
    """The terms of rho~ = alpha + direction gap + bias gap over the strength, and apart from them the bound."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        split, bound = figure.subplots(1, 2, width_ratios=(1.6, 1))
        split.axhline(0, color=MUTED, lw=0.8)
        for name, style in SPLIT.items():
            band(split, cohort, name, *style)
        split.set_title("Exact split, medians")
        split.set_ylabel("l₂ distance")
        band(bound, cohort, "bound", MUTED, "", "upper bound of ρ̃", ls="--")
        band(bound, cohort, "linearized_robustness", *SPLIT["linearized_robustness"][:2], "ρ̃")
        bound.set_title("Upper bound, not an estimate")
        bound.set_ylim(bottom=0)
        for axes in (split, bound):
            strength_axis(axes, cohort)
        lines = [*split.get_lines()[1:], bound.get_lines()[0]]
        figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=5)
    return figure


def terms_figure(cohort: Cohort) -> Figure:
    """Median share of every term of the margin, a column per strength; biases coloured, the input above them."""
    shares = {name: median(share).mean(axis=1) for name, share in term_shares(cohort).items()}
    own = shares.pop(INPUT)
    shown = np.vstack([own, *shares.values()])
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.0 + 0.3 * len(shares)), layout="constrained")
        axes = figure.subplots()
        strengths = zip(cohort.strengths, cohort.usable, strict=True)
        columns = [f"{value:g}" if use else f"{value:g}\nleft out" for value, use in strengths]
        terms_panel(axes, shown, [_label(name) for name in shares], columns)
        axes.set_xlabel(f"regularization strength {cohort.symbol}")
    return figure


def linearity_figure(cohort: Cohort) -> Figure:
    """Median profiles of the margin beside the straight line, and the link of alpha and rho over the deviation."""
    shades = mpl.colormaps["viridis_r"](np.linspace(0.12, 0.95, len(cohort.strengths)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        forward, back, linked = figure.subplots(1, 3)
        curves = []
        for axes, prefix in ((forward, FORWARD), (back, BACK)):
            t, medians = profiles(cohort, prefix)
            for s, strength in enumerate(cohort.strengths):
                usable = cohort.usable[s]
                style: dict[str, Any] = {"color": shades[s]} if usable else {"color": "#bdbdbd", "ls": ":"}
                label = f"{cohort.symbol} = {strength:g}" + ("" if usable else ", left out")
                curves.append((axes, t, medians[s], label, style))
        profile_panels(forward, back, curves)
        _linked_panel(linked, cohort, shades)
        figure.legend(*forward.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _linked_panel(axes: Axes, cohort: Cohort, shades: Array) -> None:
    link_axes(axes)
    found = link(cohort) if cohort.usable.any() else None
    if found is None:
        return
    colors = [tuple(shade) for shade in shades[cohort.usable].tolist()]
    deviation = (found.deviation, *interval(found.deviation_replicates))
    link_panel(axes, deviation, (found.correlation, *interval(found.correlation_replicates)), colors)


def _label(name: str) -> str:
    layer = LAYERS.get(name.removesuffix(".bias"))
    return f"bias of {layer}" if layer else name
