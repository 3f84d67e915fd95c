"""The report of a ROAR study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from captum_alignment.study.page import (
    PERCENT,
    Column,
    Table,
    percent,
    picture,
    points,
    setting,
    short_percent,
    write_page,
)
from captum_alignment.study.roar._figures import TITLES, accuracy_figure, examples_figure
from captum_alignment.study.roar._grid import UNMODIFIED, Cell
from captum_alignment.study.roar._summary import areas, curves, groups
from captum_alignment.study.store import versions

_METHOD = Column("method", "method", str)
_AREAS = (Column("area", "area", percent), Column("beyond_random", "beyond random", points))
_CHANCE = (Column("constant", "constant maps", percent), Column("tied", "ties at the cut", percent))


def write_roar_report(
    path: Path, cells: pd.DataFrame, config: Mapping[str, Any], image: Tensor, examples: Mapping[Cell, Tensor]
) -> None:
    """Write the report of ``cells`` to ``path``; ``image`` is shown beside what became of it in ``examples``."""
    over, under = curves(cells), areas(cells)
    modes = list(under["mode"].unique())
    seeds = int(over["seeds"].max())
    bars = (
        f"the mean over {seeds} seeds with its {PERCENT} interval by Student’s t"
        if seeds > 1
        else f"one training; its bar is the {PERCENT} interval that the number of test images alone gives"
    )
    whole = over[over["mode"] == UNMODIFIED].iloc[0]
    write_page(
        path,
        "roar.html.jinja",
        name=path.resolve().parent.name,
        config=config,
        modes=modes,
        titles=TITLES,
        seeds=seeds,
        trainings=len(cells),
        whole=percent(whole["accuracy"]),
        fractions=", ".join(
            short_percent(f) for f in sorted(over.loc[over["mode"] != UNMODIFIED, "fraction"].unique())
        ),
        curves=picture(
            accuracy_figure(over),
            f"Accuracy on modified test images of networks trained on modified training images; a point is {bars}. The "
            f"dot, and the dotted line, are the unmodified images: {percent(whole['accuracy'])}.",
        ),
        examples=[
            picture(
                examples_figure(image, examples, mode),
                f"{TITLES[mode][0]}. The first test image, not chosen by result, as the networks see it.",
            )
            for mode in modes
        ],
        tables={mode: _table(over, under, mode) for mode in modes},
        told=_told(over, float(whole["accuracy"])),
        settings={key: setting(value) for key, value in config.items() if not key.endswith(" data")},
        versions=versions(),
    )


def _table(over: pd.DataFrame, under: pd.DataFrame, mode: str) -> Table:
    """A row per method: its area, its accuracy at every fraction, and how often chance ranked."""
    frame, columns = dict(groups(under, "mode"))[mode,].reset_index(drop=True), []
    for (kind, fraction), own in groups(over.sort_values("fraction"), "mode", "fraction"):
        if kind != mode:
            continue
        name = short_percent(fraction)
        columns.append(Column(name, name, percent))
        at = own.set_index("method").loc[frame["method"]]
        for end in ("", "_low", "_high"):
            frame[f"{name}{end}"] = at[f"accuracy{end}"].to_numpy()
    return Table(f"methods-{mode}", f"areas and accuracies, {mode}", frame, (_METHOD, *_AREAS, *columns, *_CHANCE))


def _told(over: pd.DataFrame, whole: float) -> str:
    """The methods whose networks do better than on whole images, which features that are gone cannot explain."""
    better = [row for row in over.to_dict("records") if row["mode"] != UNMODIFIED and row["accuracy_low"] > whole]
    return ", ".join(dict.fromkeys(f"{row['method']} ({row['mode'].upper()})" for row in better))
