"""Sample by sample: two quantities of every run against each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from captum_alignment.study.compare._summary import CORRELATIONS, finite_pair, in_norm
from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import BLUE, INK, MUTED, STYLE, WIDTH, Array, labels, spearman

#: More points than this are drawn as a density.
_MANY = 5000
#: Runs whose typical values differ by more than this factor share a logarithmic axis, or none.
_FAR_APART = 20
#: Of titles, which fit side by side above a row of panels.
_LETTERS = 88
_LABELS = {
    "linearized_robustness": "ρ̃, linearized robustness",
    "alignment": "α, alignment",
    "distance": "ρ, distance",
}
Limits = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Cloud:
    """The points of one model, all finite."""

    title: str
    x: Array
    y: Array


def run_scatter_figure(runs: Sequence[Run], name: str) -> Figure:
    """Sample by sample, one panel per run: the two quantities of the correlation ``name``."""
    names = labels([run.name for run in runs], _LETTERS // _columns(len(runs)))
    clouds = [Cloud(label, *finite_pair(run, name)) for label, run in zip(names, runs, strict=True)]
    figure = scatter_panels(clouds, CORRELATIONS[name], _shared([(cloud.x, cloud.y) for cloud in clouds]))
    x, y = CORRELATIONS[name]
    figure.supxlabel(in_norm(_LABELS[x], runs), fontsize=9)
    figure.supylabel(in_norm(_LABELS[y], runs), fontsize=9)
    return figure


def cut_off(runs: Sequence[Run], name: str) -> int:
    """The finite points that lie outside the panels of `run_scatter_figure`."""
    pairs = [finite_pair(run, name) for run in runs]
    limits = _shared(pairs)

    def outside(x: Array, y: Array) -> int:
        ends = limits or (upto(x), upto(y))
        return int(np.any([(v < low) | (v > high) for v, (low, high) in zip((x, y), ends, strict=True)], axis=0).sum())

    return sum(outside(x, y) for x, y in pairs)


def one_scale(runs: Sequence[Run], name: str) -> bool:
    """Whether the panels of the correlation ``name`` have the same axes, as they do unless runs are far apart."""
    return _shared([finite_pair(run, name) for run in runs]) is not None


def _shared(pairs: Sequence[tuple[Array, Array]]) -> tuple[Limits, Limits] | None:
    """The limits that all panels share; None where runs are too far apart for that."""
    sides = list(zip(*pairs, strict=True))
    if any(map(far_apart, sides)):
        return None
    x, y = (max((upto(values) for values in side if len(values)), default=(0.0, 1.0)) for side in sides)
    return x, y


def far_apart(samples: Iterable[Array]) -> bool:
    """Whether the medians of the positive values differ by more than a linear axis can show."""
    positive = [values[np.isfinite(values) & (values > 0)] for values in samples]
    medians = [float(np.median(values)) for values in positive if len(values)]
    return bool(medians) and max(medians) > _FAR_APART * min(medians)


def scatter_panels(clouds: Sequence[Cloud], pair: tuple[str, str], limits: tuple[Limits, Limits] | None) -> Figure:
    """One panel per cloud, all with the same ``limits``, or each with its own where they are None."""
    columns = _columns(len(clouds))
    rows = -(-len(clouds) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.4 + 2 * rows), layout="constrained")
        shared = limits is not None
        panels = figure.subplots(rows, columns, sharex=shared, sharey=shared, squeeze=False).ravel()
        for axes, cloud in zip(panels, clouds, strict=False):
            x_limits, y_limits = limits or (upto(cloud.x), upto(cloud.y))
            if pair[1] == "distance":
                axes.axline((0, 0), slope=1, color=MUTED, lw=0.8, ls=(0, (4, 3)))
            _points(axes, cloud, x_limits, y_limits)
            value = f"r = {float(spearman(cloud.x, cloud.y)):.2f}" if len(cloud.x) > 2 else "too few"
            axes.set_title(f"{cloud.title}\n", color=INK, fontsize=8)
            axes.set_title(value, loc="right", color=MUTED, fontsize=8)
            axes.set_xlim(*x_limits)
            axes.set_ylim(*y_limits)
        for axes in panels[len(clouds) :]:
            axes.remove()
    return figure


def _columns(panels: int) -> int:
    return min(4, panels)


def _points(axes: Axes, cloud: Cloud, x_limits: Limits, y_limits: Limits) -> None:
    if len(cloud.x) <= _MANY:
        axes.scatter(cloud.x, cloud.y, s=7, alpha=0.35, lw=0, color=BLUE, rasterized=True)
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
