"""The figures of the study of faithfulness."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from captum_alignment.study.fit import STANDARD, TRAININGS
from captum_alignment.study.page import (
    INK,
    MUTED,
    STYLE,
    VERMILION,
    WIDTH,
    percent_axis,
    plain,
    run_style,
    show_image,
    show_signed,
)
from captum_alignment.study.roar import groups

_KINDS = {"signed": (INK, "o", "signed"), "absolute": (VERMILION, "s", "absolute")}


def faithfulness_figure(table: pd.DataFrame) -> Figure:
    """The ROAR area against the median distance, a colour for each training."""
    random = float((table["area"] + table["beyond_random"]).iloc[0])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.8 * WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.axhline(random, color=MUTED, lw=0.8, ls=(0, (4, 3)))
        for number, ((training,), own) in enumerate(groups(table, "training")):
            color = run_style(number)["color"]
            x, y = own["distance"].to_numpy(), own["area"].to_numpy()
            axes.hlines(y, own["distance_low"], own["distance_high"], color=color, lw=0.8, alpha=0.6)
            axes.vlines(x, own["area_low"], own["area_high"], color=color, lw=0.8, alpha=0.6)
            usable = own["usable"].to_numpy(bool)
            axes.plot(x[usable], y[usable], "o", color=color, label=str(training))
            axes.plot(x[~usable], y[~usable], "x", color=color)
            for strength, left, top in zip(own["strength"], x, y, strict=True):
                if training != STANDARD and np.isfinite(left):
                    axes.annotate(
                        f"{strength:g}", (left, top), (4, 3), textcoords="offset points", fontsize=7, color=color
                    )
        axes.set_xlabel("median robustness ρ (l₂ distance)")
        axes.set_ylabel("area under the ROAR curve")
        percent_axis(axes.yaxis)
        figure.legend(loc="outside lower center", ncols=5)
    return figure


def alignment_figure(table: pd.DataFrame) -> Figure:
    """Median alignment against the strength, a panel for each training, each beginning with the standard network."""
    by_training = {training: own for (training,), own in groups(table, "training")}
    standard = by_training.pop(STANDARD)
    columns = max(1, len(by_training))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
        for axes, (training, rows) in zip(panels, (by_training or {STANDARD: standard}).items(), strict=True):
            own = pd.concat([standard, rows]) if training != STANDARD else standard
            ticks = np.arange(len(own))
            for kind, (color, marker, label) in _KINDS.items():
                axes.plot(ticks, own[f"{kind}_alignment"], marker=marker, color=color, label=label)
                axes.plot(ticks, own[f"{kind}_null"], color=color, ls="--", lw=1, label=f"{label}, chance")
            axes.set_xticks(ticks, [f"{strength:g}" for strength in own["strength"]])
            axes.set_title(training)
            axes.set_xlabel(TRAININGS[training].symbol if training in TRAININGS else "strength")
            axes.set_ylim(bottom=0)
        panels[0].set_ylabel("median alignment α (l₂)")
        lines, names = panels[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=4)
    return figure


def saliency_figure(images: Tensor, maps: Mapping[str, Tensor]) -> Figure:
    """The images (G, C, H, W) above their maps, a row for each network."""
    rows, columns = len(maps) + 1, len(images)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.3 + 0.75 * columns, 0.78 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes, image in zip(panels[0], images, strict=True):
            show_image(axes, image.numpy())
        for row, found in zip(panels[1:], maps.values(), strict=True):
            for axes, one in zip(row, found, strict=True):
                show_signed(axes, one.numpy())
        for row, name in zip(panels, ["image", *maps], strict=True):
            row[0].set_ylabel(plain(name, 18), rotation=0, ha="right", va="center", fontsize=8, color=INK)
    return figure
