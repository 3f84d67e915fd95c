"""Attributions side by side: a table of methods and metrics, and its figure."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from captum_alignment.metrics import median_interval
from captum_alignment.study.compare._summary import in_norm
from captum_alignment.study.evaluation import (
    AGREEMENT,
    DELETION,
    FAILED,
    MASK,
    MASS,
    OF_RANDOM,
    POINTING,
    RANDOMIZED,
    SECONDS,
    SENSITIVITY,
    Run,
    attributions_in,
    of_attribution,
)
from captum_alignment.study.page import (
    INK,
    STYLE,
    WIDTH,
    Array,
    Column,
    Table,
    count,
    labels,
    number,
    run_style,
    wilson,
)

#: The metrics of the table: its column, what stands above it.
METRICS = {
    "alignment": "α",
    "null": "chance",
    "excess": "α − chance",
    "rank": "rank of α",
    "deletion": "deletion",
    "random": "of a random ranking",
    "gain": "random − deletion",
    "randomized": "r, network randomised",
    "agreement": "r, other maps",
    "sensitivity": "sensitivity",
    "seconds": "seconds",
}
#: The same of runs that have masks.
LOCALISATION = {"mass": "mass inside mask", "mask": "of a flat map", "pointing": "pointing game"}
_ALIGNMENTS = ("alignment", "null", "excess", "rank")
#: Of these the figure has a panel each; with their units, where it is not that of distances or none.
_PANELS = {
    "excess": "",
    "gain": "\n(probability)",
    "randomized": "",
    "sensitivity": "\n(relative change)",
}


def has_attributions(runs: Sequence[Run]) -> bool:
    return any(attributions_in(run.records) for run in runs)


def summarise_attributions(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run and attribution: medians of `METRICS` over the samples with a map, each with its 95 % interval.

    Of runs with masks also `LOCALISATION`, the pointing game as the share of hits, by Wilson's interval.

    gain is how much faster than for a random ranking the probability falls, sample by sample; agreement the mean rank
    correlation with the other attributions. n and failed are the numbers of samples with and without a map.
    """
    return pd.DataFrame([_row(run, name) for run in runs for name in attributions_in(run.records)])


def _row(run: Run, name: str) -> dict[str, Any]:
    known = run.values(f"{SECONDS}{name}")
    failed = int(run.records[f"{FAILED}{name}"].notna().sum())
    row: dict[str, Any] = {"run": run.name, "attribution": name, "n": np.isfinite(known).sum(), "failed": failed}
    for metric, values in _metrics(run, name).items():
        names = metric, f"{metric}_low", f"{metric}_high"
        row |= dict(zip(names, median_interval(torch.from_numpy(values)), strict=True))
    if MASK in run.records:
        hits = run.values(f"{POINTING}{name}")
        hits = hits[np.isfinite(hits)]
        found = (hits.mean() if len(hits) else np.nan, *wilson(hits.sum(), len(hits)))
        row |= dict(zip(("pointing", "pointing_low", "pointing_high"), found, strict=True))
    return row


def _metrics(run: Run, name: str) -> dict[str, Array]:
    """The metrics (n,) of the measured samples; NaN where there is none."""
    deletion, of_random = run.values(f"{DELETION}{name}"), run.values(OF_RANDOM)
    pairs = [run.values(str(column)) for column in run.records if _is_pair_with(str(column), name)]
    mass = run.values(f"{MASS}{name}")
    masked = {"mass": mass, "mask": np.where(np.isnan(mass), np.nan, run.values(MASK))} if MASK in run.records else {}
    return masked | {
        **{metric: run.values(f"{of_attribution(metric)}{name}").copy() for metric in _ALIGNMENTS},
        "deletion": deletion.copy(),
        "random": np.where(np.isnan(deletion), np.nan, of_random),
        "gain": of_random - deletion,
        "randomized": run.values(f"{RANDOMIZED}{name}").copy(),
        "agreement": _mean(pairs, run.measured),
        "sensitivity": run.values(f"{SENSITIVITY}{name}").copy(),
        "seconds": run.values(f"{SECONDS}{name}").copy(),
    }


def _mean(rows: Sequence[Array], n: int) -> Array:
    """The mean (n,) over what is known; a constant map correlates with none."""
    values = np.stack([*rows, np.full(n, np.nan)])
    known = np.isfinite(values).sum(axis=0)
    return np.where(known, np.nansum(values, axis=0) / known.clip(1), np.nan)


def _is_pair_with(column: str, name: str) -> bool:
    return column.startswith(AGREEMENT) and name in column.removeprefix(AGREEMENT).split(" & ")


def attribution_table(runs: Sequence[Run]) -> Table:
    """Methods by metrics."""
    frame = summarise_attributions(runs)
    heads = (Column("run", "run", str),) if len(runs) > 1 else ()
    columns = (
        *heads,
        Column("attribution", "attribution", str),
        Column("n", "samples", count),
        Column("failed", "failed", count),
        *(Column(metric, head, number) for metric, head in METRICS.items()),
        *(Column(metric, head, number) for metric, head in LOCALISATION.items() if metric in frame),
    )
    return Table("attributions", "attributions of every run", frame, columns)


def attribution_figure(runs: Sequence[Run]) -> Figure:
    """Medians and their 95 % intervals, a row per attribution and a panel per metric; the runs have their colours."""
    frame = summarise_attributions(runs)
    methods = list(dict.fromkeys(frame["attribution"]))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 1.0 + 0.35 * len(methods) + 0.17 * len(runs)), layout="constrained")
        panels = figure.subplots(1, len(_PANELS), sharey=True)
        lines = []
        for axes, (metric, unit) in zip(panels, _PANELS.items(), strict=True):
            for place, run in enumerate(runs):
                own = frame[frame["run"] == run.name]
                rows = np.array([methods.index(name) for name in own["attribution"]])
                rows = rows + 0.5 * (place + 0.5) / len(runs) - 0.25
                color = run_style(place)["color"]
                axes.hlines(rows, own[f"{metric}_low"], own[f"{metric}_high"], color=color, lw=1.2)
                points = axes.plot(own[metric], rows, "o", color=color, ms=4)
                lines += points if axes is panels[0] else []
            label = METRICS[metric] + unit
            axes.set_xlabel(in_norm(label, runs) if metric in _ALIGNMENTS else label, fontsize=8)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.axvline(0, color="#a8a8a8", lw=0.8, zorder=0)
        panels[0].set_yticks(range(len(methods)), labels(methods))
        panels[0].set_ylim(len(methods) - 0.5, -0.5)
        if len(runs) > 1:
            figure.legend(lines, labels([run.name for run in runs]), loc="outside lower center", ncols=3)
    return figure
