"""What the cells of a ROAR study say: accuracy curves and the areas under them, with intervals over seeds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.load import RANDOM
from captum_alignment.study.page import Array, mean_interval, wilson
from captum_alignment.study.roar._grid import UNMODIFIED

_NOT_KNOWN = (np.nan, np.nan, np.nan)


def groups(frame: pd.DataFrame, *names: str) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows that agree in the columns ``names``, and in what, in the order in which they come."""
    yield from frame.groupby(list(names), sort=False)  # pyright: ignore[reportReturnType] - keys of a list are tuples


def curves(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per mode, method and fraction: accuracy, accuracy_low, accuracy_high, seeds; the unmodified ones first.

    The interval is over seeds; for a single seed it is that of its test images alone, and no training's.
    """
    rows = []
    for (mode, method, fraction), group in groups(cells, "mode", "method", "fraction"):
        mean, low, high = mean_interval(group["accuracy"])
        if len(group) == 1:
            low, high = (float(end) for end in wilson(group["correct"].iloc[0], group["tested"].iloc[0]))
        ends = {"accuracy": mean, "accuracy_low": max(low, 0.0), "accuracy_high": min(high, 1.0)}
        rows.append({"mode": mode, "method": method, "fraction": fraction, **ends, "seeds": len(group)})
    return pd.DataFrame(rows)


def areas(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per mode and method: the area under the accuracy, and how far it is on the better side of chance.

    Returns:
        area, the mean accuracy along the curve, which begins (ROAR) or ends (KAR) with unmodified images; a faithful
        method has a small one by ROAR, a large one by KAR. beyond_random, the area of the random ranking minus it
        (ROAR), or it minus that area (KAR), seed by seed; NaN without a random ranking. Both with ``_low`` and
        ``_high``, over seeds, NaN for one seed. constant and tied, the shares of test images whose map is constant, and
        whose cut lies among features of equal importance, over all cells of the row.
    """
    by_name = dict(groups(cells, "mode", "method"))
    whole = by_name.pop((UNMODIFIED, UNMODIFIED))
    found = {key: _area(group, whole, key[0]) for key, group in by_name.items()}
    rows = []
    for (mode, method), area in found.items():
        gain = _NOT_KNOWN
        if method != RANDOM and (mode, RANDOM) in found:
            gain = mean_interval((found[mode, RANDOM] - area) * (1 if mode == "roar" else -1))
        ends = _named("area", mean_interval(area)) | _named("beyond_random", gain)
        rows.append({"mode": mode, "method": method, **ends, **_chance(by_name[mode, method]), "seeds": len(area)})
    return pd.DataFrame(rows)


def _area(own: pd.DataFrame, whole: pd.DataFrame, mode: str) -> Array:
    """The area under the curve of every seed (R,)."""
    whole = whole.assign(fraction=0.0 if mode == "roar" else 1.0)
    table = pd.concat([own, whole]).pivot(index="fraction", columns="seed", values="accuracy").sort_index()
    x, y = table.index.to_numpy(float), table.to_numpy()
    return (np.diff(x)[:, None] * (y[1:] + y[:-1]) / 2).sum(0) / (x[-1] - x[0])


def _chance(own: pd.DataFrame) -> dict[str, float]:
    return {name: float(own[f"{name}_test"].sum() / own["tested"].sum()) for name in ("constant", "tied")}


def _named(name: str, found: tuple[Any, Any, Any]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
