"""Medians, shares, rank correlations and their intervals; infinite values are large, NaN alone is missing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm as normal
from scipy.stats import rankdata
from scipy.stats import t as student

from captum_alignment.metrics import LEVEL
from captum_alignment.study.page._text import short_percent

Array = NDArray[Any]

RESAMPLES = 2000
#: `LEVEL` as texts name it.
PERCENT = short_percent(LEVEL)
#: The share of a distribution below the upper bound of an interval.
TAIL = (1 + LEVEL) / 2
Z = float(normal.ppf(TAIL))  # the standard deviations within which that share of a normal one lies
#: Below this many pairs the variance of a rank correlation is not left to its estimate alone.
_FEW = 30
#: Resampled values held at once.
_CHUNK = 4_000_000


def resample(n: int, resamples: int = RESAMPLES, *, seed: int = 0) -> Array:
    """Indices (resamples, n) drawn with replacement; shared by all models, they make the bootstrap paired."""
    return np.random.default_rng(seed).integers(0, n, size=(resamples, n))


def interval(replicates: ArrayLike) -> tuple[Array, Array]:
    """The percentile interval over the first axis. NaN where a replicate is NaN.

    Bounds are replicates themselves: interpolation would make NaN of infinities.
    """
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(np.asarray(replicates, float), tails, axis=0, method="inverted_cdf")
    return low, high


def mean_interval(values: ArrayLike) -> tuple[Array, Array, Array]:
    """The mean over the first axis, of independent trainings, and its interval by Student's t; NaN for one."""
    found = np.asarray(values, float)
    n, mean = len(found), found.mean(axis=0)
    if n < 2:
        return mean, mean * np.nan, mean * np.nan
    half = student.ppf(TAIL, n - 1) * found.std(axis=0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def median(values: ArrayLike) -> Array:
    """Medians over the last axis of the values that are not NaN; NaN where there are none."""
    ordered = np.sort(np.asarray(values, float), axis=-1)  # NaN last
    if not ordered.shape[-1]:
        return np.full(ordered.shape[:-1], np.nan)
    known = (~np.isnan(ordered)).sum(-1, keepdims=True)
    lower, upper = (np.take_along_axis(ordered, k // 2, axis=-1)[..., 0] for k in (np.maximum(known - 1, 0), known))
    with np.errstate(invalid="ignore"):  # between -inf and inf there is no median
        return (lower + upper) / 2


def bootstrap_medians(values: ArrayLike, indices: Array) -> Array:
    """Medians (B, ...) of ``values`` (..., n) under each of the resamples ``indices`` (B, n)."""
    return np.concatenate([median(part) for part in _resampled(np.asarray(values, float), indices)])


def spearman(a: ArrayLike, b: ArrayLike) -> Array:
    """The rank correlation over the last axis, ties sharing their mean rank; NaN where either side is constant."""
    u, v = _centred_ranks(a), _centred_ranks(b)
    norm = np.sqrt((u * u).sum(-1) * (v * v).sum(-1))
    return np.divide((u * v).sum(-1), norm, out=np.full(norm.shape, np.nan), where=norm > 0)


def bootstrap_spearman(a: ArrayLike, b: ArrayLike, indices: Array) -> Array:
    """Rank correlations (B, ...) of ``a`` and ``b`` (..., n) under each of the resamples ``indices`` (B, n)."""
    pairs = zip(_resampled(np.asarray(a, float), indices), _resampled(np.asarray(b, float), indices), strict=True)
    return np.concatenate([spearman(left, right) for left, right in pairs])


def wilson(successes: ArrayLike, trials: ArrayLike) -> tuple[Array, Array]:
    """The score interval of a share (Wilson 1927), which stays in [0, 1]; NaN without trials."""
    k, n = np.asarray(successes, float), np.asarray(trials, float)
    n = np.where(n > 0, n, np.nan)
    share, square = k / n, Z**2 / n
    half = np.sqrt(square * (share * (1 - share) + square / 4))
    middle = share + square / 2
    # Exact at the ends, where rounding could leave [0, 1] or the share out.
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return np.where(k == 0, 0 * n, low), np.where(k == n, 1 + 0 * n, high)


def spearman_interval(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """The interval of the rank correlation of two samples (n,), whatever their joint distribution.

    Fisher's z with the variance of Spearman's influence function (the linear part of its U-statistic; Borkowf 2002), so
    that it holds for close correlations and heavy tails too, where the variance 1.06 / (n - 3) covers too little; of
    Student's t with the degrees of freedom that this variance has by the kurtosis of the influence.
    NaN below 10 pairs, and where the correlation is -1, 1 or undefined.
    """
    x, y = (np.asarray(values, float) for values in (a, b))
    n = len(x)
    r = float(spearman(x, y)) if n >= 10 else np.nan
    if not abs(r) < 1:
        return np.nan, np.nan
    u, v = _centred_ranks(x) / n, _centred_ranks(y) / n
    uu, vv = (u * u).mean(), (v * v).mean()
    # A sample moves the product of ranks by itself and through the ranks of all others; with ties the variances, too.
    product = u * v + _over_larger(x, v) + _over_larger(y, u)
    scales = (u * u + 2 * _over_larger(x, u)) / uu + (v * v + 2 * _over_larger(y, v)) / vv
    influence = product / np.sqrt(uu * vv) - r / 2 * scales
    error, freedom = influence.std(ddof=1) / np.sqrt(n - 3) / (1 - r * r), _freedom(influence)
    if n < _FEW:  # too few to estimate it well: not below that of a normal sample (Fieller et al. 1957)
        error, freedom = max(error, np.sqrt(1.06 / (n - 3))), n - 2
    half = student.ppf(TAIL, freedom) * error
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def _freedom(values: Array) -> float:
    """Of the variance of ``values`` (n,) the degrees of freedom (Satterthwaite): few where some weigh much."""
    n, square = len(values), (values - values.mean()) ** 2
    excess = (square * square).mean() / square.mean() ** 2 - 1 if square.any() else 0.0
    return min(n - 2.0, max(2 * n / excess, 2.0) if excess else np.inf)


def _over_larger(values: Array, weights: Array) -> Array:
    """Of each value the sum of ``weights`` at the larger ones, half at equal ones, over n: one sort."""
    order = np.argsort(values, kind="stable")
    ordered, sums = values[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (sums[-1] - sums[up_to] + (sums[up_to] - sums[below]) / 2) / len(values)


def _centred_ranks(values: ArrayLike) -> Array:
    ranks = rankdata(np.asarray(values, float), axis=-1)
    return ranks - ranks.mean(axis=-1, keepdims=True)


def _resampled(values: Array, indices: Array) -> Iterator[Array]:
    size = max(1, _CHUNK // values.size)
    for start in range(0, len(indices), size):
        yield np.moveaxis(values[..., indices[start : start + size]], -2, 0)
