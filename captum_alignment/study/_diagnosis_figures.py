"""The figures of the diagnosis: the exact split, the terms of the margin, and how straight it falls."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from captum_alignment.study._diagnosis import link, profiles, term_shares
from captum_alignment.study._explain import BACK, FORWARD, INPUT
from captum_alignment.study._figures import INK, MUTED, STYLE, WIDTH, band, strength_axis
from captum_alignment.study._networks import LAYERS
from captum_alignment.study._statistics import Array, interval, median
from captum_alignment.study._summary import Cohort

_LINEARIZED, _DIRECTION, _BIAS = "#d55e00", "#0072b2", "#009e73"


def split_figure(cohort: Cohort) -> Figure:
    """The terms of rho~ = alpha + direction gap + bias gap over the strength, and apart from them the bound."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        split, bound = figure.subplots(1, 2, width_ratios=(1.6, 1))
        split.axhline(0, color=MUTED, lw=0.8)
        band(split, cohort, "alignment", INK, "o", "α")
        band(split, cohort, "direction_gap", _DIRECTION, "v", "direction gap")
        band(split, cohort, "bias_gap", _BIAS, "s", "bias gap")
        band(split, cohort, "linearized_robustness", _LINEARIZED, "D", "ρ̃, their sum")
        split.set_title("Exact split, medians")
        split.set_ylabel("l₂ distance")
        band(bound, cohort, "bound", MUTED, "", "upper bound of ρ̃", ls="--")
        band(bound, cohort, "linearized_robustness", _LINEARIZED, "D", "ρ̃")
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
    rows = np.array(list(shares.values()))
    strengths, usable = cohort.strengths, cohort.usable
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.0 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        top = float(np.nanmax(rows, initial=1e-9))
        axes.imshow(np.vstack([np.full_like(own, np.nan), rows]), cmap="Blues", vmin=0, vmax=1.25 * top, aspect="auto")
        for (i, j), share in np.ndenumerate(np.vstack([own, rows])):
            color = "white" if i and share > 0.75 * top else INK
            text = "–" if np.isnan(share) else f"{100 * share:.1f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
        axes.axhline(0.5, color=MUTED, lw=0.8)
        axes.set_yticks(range(len(rows) + 1), ["input ⟨x, ∇Ψ†⟩", *map(_label, shares)])
        labels = [f"{value:g}" if use else f"{value:g}\nleft out" for value, use in zip(strengths, usable, strict=True)]
        axes.set_xticks(range(len(strengths)), labels)
        axes.set_xlabel("regularization strength λ")
        axes.set_title("Median |term|, % of the sum over all terms")
        axes.tick_params(length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
    return figure


def linearity_figure(cohort: Cohort) -> Figure:
    """Median profiles of the margin beside the straight line, and the link of alpha and rho over the deviation."""
    shades = mpl.colormaps["viridis_r"](np.linspace(0.12, 0.95, len(cohort.strengths)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        forward, back, linked = figure.subplots(1, 3)
        for axes, prefix in ((forward, FORWARD), (back, BACK)):
            t, medians = profiles(cohort, prefix)
            for s, strength in enumerate(cohort.strengths):
                usable = cohort.usable[s]
                style: dict[str, Any] = {"color": shades[s]} if usable else {"color": "#bdbdbd", "ls": ":"}
                axes.plot(t, medians[s], label=f"λ = {strength:g}" + ("" if usable else ", left out"), lw=1.2, **style)
            axes.plot(t, 1 - t, color=INK, lw=1, ls=(0, (4, 3)), label="1 − t, linear")
            axes.axhline(0, color=MUTED, lw=0.8)
            axes.set_ylabel("margin, relative to t = 0")
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        forward.set_title("To the linearized boundary")
        forward.set_xlabel("of the step of length ρ̃")
        back.set_title("To the nearest adversarial")
        back.set_xlabel("of the way of length ρ")
        _linked_panel(linked, cohort, shades)
        figure.legend(*forward.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _linked_panel(axes: Axes, cohort: Cohort, shades: Array) -> None:
    axes.set_title("Linearity and the link")
    axes.set_xlabel("median deviation from 1 − t")
    axes.set_ylabel("r(α, ρ) over samples")
    found = link(cohort) if cohort.usable.any() else None
    if found is None:
        return
    (x_low, x_high), (y_low, y_high) = map(interval, (found.deviation_replicates, found.correlation_replicates))
    colors = [tuple(shade) for shade in shades[cohort.usable].tolist()]
    axes.hlines(found.correlation, x_low, x_high, colors=colors, lw=1)
    axes.vlines(found.deviation, y_low, y_high, colors=colors, lw=1)
    axes.scatter(found.deviation, found.correlation, c=colors, s=22, zorder=3)
    axes.margins(0.12)


def _label(name: str) -> str:
    layer = LAYERS.get(name.removesuffix(".bias"))
    return f"bias of {layer}" if layer else name
