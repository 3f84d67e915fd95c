"""Panels that the figures of a study and of a comparison share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from captum_alignment.study.page._statistics import Array, spearman
from captum_alignment.study.page._style import BLUE, GREEN, INK, MUTED, STYLE, VERMILION, WIDTH

#: More points than this are drawn as a density.
_MANY = 5000
#: Colour, marker and label of rho~ and of the terms that it is the sum of.
SPLIT = {
    "alignment": (INK, "o", "α"),
    "direction_gap": (BLUE, "v", "direction gap"),
    "bias_gap": (GREEN, "s", "bias gap"),
    "linearized_robustness": (VERMILION, "D", "ρ̃, their sum"),
}
_LABELS = {
    "linearized_robustness": "ρ̃, linearized robustness",
    "alignment": "α, alignment",
    "distance": "ρ, distance",
}
Limits = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Cloud:
    """The points of one model, all finite; one that is not usable is grey and has no correlation."""

    title: str
    x: Array
    y: Array
    usable: bool = True


def scatter_panels(clouds: Sequence[Cloud], pair: tuple[str, str], limits: tuple[Limits, Limits] | None) -> Figure:
    """One panel per cloud, all with the same ``limits``, or each with its own where they are None."""
    columns = min(4, len(clouds))
    rows = -(-len(clouds) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.4 + 1.85 * rows), layout="constrained")
        shared = limits is not None
        panels = figure.subplots(rows, columns, sharex=shared, sharey=shared, squeeze=False).ravel()
        for axes, cloud in zip(panels, clouds, strict=False):
            x_limits, y_limits = limits or (upto(cloud.x), upto(cloud.y))
            if pair[1] == "distance":
                axes.axline((0, 0), slope=1, color=MUTED, lw=0.8, ls=(0, (4, 3)))
            _points(axes, cloud, x_limits, y_limits)
            value = f"r = {float(spearman(cloud.x, cloud.y)):.2f}" if len(cloud.x) > 2 else "too few"
            axes.set_title(cloud.title, color=INK if cloud.usable else MUTED)
            axes.set_title(value if cloud.usable else "left out", loc="right", color=MUTED)
            axes.set_xlim(*x_limits)
            axes.set_ylim(*y_limits)
        for axes in panels[len(clouds) :]:
            axes.remove()
        figure.supxlabel(_LABELS[pair[0]], fontsize=9)
        figure.supylabel(_LABELS[pair[1]], fontsize=9)
    return figure


def _points(axes: Axes, cloud: Cloud, x_limits: Limits, y_limits: Limits) -> None:
    if len(cloud.x) <= _MANY:
        color = BLUE if cloud.usable else "#9a9a9a"
        axes.scatter(cloud.x, cloud.y, s=7, alpha=0.35, lw=0, color=color, rasterized=True)
        return
    counts, x_edges, y_edges = np.histogram2d(cloud.x, cloud.y, bins=70, range=(x_limits, y_limits))
    # From below 1, so that a cell with one point is not white.
    norm = LogNorm(0.2, max(1.0, float(counts.max())))
    shades = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(x_edges, y_edges, shades, cmap="Blues", norm=norm, rasterized=True)


def upto(values: Array) -> Limits:
    """From 0 to what nearly all of ``values`` stay below."""
    top = 1.05 * float(np.quantile(values, 0.998)) if len(values) else 1.0
    return 0.0, top if top > 0 else 1.0


def profile_panels(forward: Axes, back: Axes, curves: Iterable[tuple[Axes, Array, Array, str, dict[str, Any]]]) -> None:
    """Median profiles of the margin beside the straight line; a curve is (its panel, t, medians, label, style)."""
    for axes, t, medians, label, style in curves:
        axes.plot(t, medians, label=label, lw=1.2, **style)
    for axes in (forward, back):
        axes.plot([0, 1], [1, 0], color=INK, lw=1, ls=(0, (4, 3)), label="1 − t, linear")
        axes.axhline(0, color=MUTED, lw=0.8)
        axes.set_ylabel("margin, relative to t = 0")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    forward.set_title("To the linearized boundary")
    forward.set_xlabel("of the step of length ρ̃")
    back.set_title("To the nearest adversarial")
    back.set_xlabel("of the way of length ρ")


def link_panel(
    axes: Axes, deviation: Sequence[Array], correlation: Sequence[Array], colors: Any, markers: Sequence[str] = ("o",)
) -> None:
    """The link of alpha and rho over the deviation from linearity; each (value, low, high) of all models."""
    (x, x_low, x_high), (y, y_low, y_high) = deviation, correlation
    axes.hlines(y, x_low, x_high, colors=colors, lw=1)
    axes.vlines(x, y_low, y_high, colors=colors, lw=1)
    marks = np.resize(np.array(markers), len(x))
    for marker in dict.fromkeys(markers):
        chosen = np.flatnonzero(marks == marker)
        axes.scatter(x[chosen], y[chosen], c=[colors[i] for i in chosen], marker=marker, s=22, zorder=3)
    axes.margins(0.12)


def link_axes(axes: Axes) -> None:
    """Title and labels of what `link_panel` draws."""
    axes.set_title("Linearity and the link")
    axes.set_xlabel("median deviation from 1 − t")
    axes.set_ylabel("r(α, ρ) over samples")


def terms_panel(axes: Axes, shares: Array, names: Sequence[str], columns: Sequence[str]) -> None:
    """Median shares (terms, models) as a shaded table; the first row is the input's, which is not shaded."""
    top = float(np.nanmax(shares[1:], initial=1e-9))
    shaded = np.vstack([np.full_like(shares[:1], np.nan), shares[1:]])
    axes.imshow(shaded, cmap="Blues", vmin=0, vmax=1.25 * top, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        color = "white" if i and share > 0.75 * top else INK
        text = "–" if np.isnan(share) else f"{100 * share:.1f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    axes.axhline(0.5, color=MUTED, lw=0.8)
    axes.set_yticks(range(len(names) + 1), ["input ⟨x, ∇Ψ†⟩", *names])
    axes.set_xticks(range(len(columns)), columns)
    axes.set_title("Median |term|, % of the sum over all terms")
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
