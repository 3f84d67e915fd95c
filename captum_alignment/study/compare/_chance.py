"""Chance levels of a run: what samples share through their maps, and whether maps show their image or its class."""

import numpy as np
from scipy.stats import norm as normal

from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import Array, median

#: alignment / null, the alignment in units of its chance level.
TIMES_CHANCE = "times_chance"
#: How the quantities of chance move with their maps' mean score on other images, in units of their median chance level.
_SHARED = {"null": 1, "excess": -1}
#: With fewer samples the sum of their excesses is not yet normal.
_FEWEST = 20


def times_chance(run: Run) -> Array:
    """alignment / null of every measured sample (n,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = run.values("alignment") / run.values("null")
    # 0 / 0: a model without gradient, no better than chance.
    return np.where((run.values("alignment") == 0) & (run.values("null") == 0), 1.0, ratio)


def shared_by_maps(name: str, values: Array, null: Array, map_null: Array) -> Array | None:
    """What each sample's map adds to the quantity ``name`` of all others, to first order (..., n); None: nothing.

    All arguments are (..., n): that quantity, the chance level, and what the maps score on other images.
    """
    if name not in (*_SHARED, TIMES_CHANCE):
        return None
    known = np.isfinite(map_null)
    mean = np.where(known, map_null, 0).sum(-1, keepdims=True) / np.maximum(known.sum(-1, keepdims=True), 1)
    relative = np.divide(map_null, mean, out=np.ones_like(map_null), where=mean > 0) - 1
    middle = -median(values) if name == TIMES_CHANCE else _SHARED[name] * median(null)
    return middle[..., None] * relative


def exchangeability(run: Run) -> dict[str, float]:
    """class_p, the p-value of maps that are exchangeable within predicted classes, and class_n, how many are tested.

    Normal, by `captum_alignment.metrics.exchangeability_test` of every group of samples; NaN below 20 samples.
    """
    excess, variance = run.values("class_excess"), run.values("class_variance")
    known = np.isfinite(excess) & np.isfinite(variance)
    n, total = int(known.sum()), float(variance[known].sum())
    testable = n >= _FEWEST and total > 0
    return {"class_p": float(normal.sf(excess[known].sum() / np.sqrt(total))) if testable else np.nan, "class_n": n}
