"""How each claim of Etmann et al. 2019 is judged: the status and the sentence with the numbers that support it."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from scipy.stats import rankdata

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.compare import CORRELATIONS, TIMES_CHANCE
from captum_alignment.study.page import (
    Array,
    between,
    bootstrap_medians,
    bootstrap_spearman,
    fixed,
    interval,
    mean_interval,
    median,
    number,
    resample,
    spearman,
)

Status = Literal["supported", "contradicted", "not distinguishable", "not testable"]
Judgement: TypeAlias = tuple[Status, str]

#: A median ratio in this range is called close, a rank correlation from this value on high.
CLOSE = (0.8, 1.25)
HIGH = 0.8


def maps_fit_their_image(cohort: Cohort) -> Judgement:
    times, rho = cohort.by_seed(TIMES_CHANCE), cohort.by_seed("distance").mean(axis=0)
    least, most = int(np.argmin(rho)), int(np.argmax(rho))
    strengths, means = cohort.strengths[cohort.usable], times.mean(axis=0)
    difference, low, high = _over_trainings(times[:, most] - times[:, least])
    return _sign(low, high), (
        f"An image aligns {number(means[most])} times as well with its own map as with the maps of other images at "
        f"{cohort.symbol} = {strengths[most]:g}, and {number(means[least])} times at {cohort.symbol} = "
        f"{strengths[least]:g}; the difference is {fixed(difference)} {between(low, high)}."
    )


def rises(x: str, y: str, x_symbol: str | None, y_symbol: str) -> Callable[[Cohort], Judgement]:
    """Whether ``y`` rises with ``x``, shown as these symbols; None is the symbol of the strength."""

    def judge(cohort: Cohort) -> Judgement:
        name = x_symbol or cohort.symbol
        b = cohort.by_seed(y)
        strengths = cohort.strengths[cohort.usable]
        # Strengths are spread over decades: their order counts.
        a = np.broadcast_to(np.arange(len(strengths)), b.shape) if x == "strength" else cohort.by_seed(x)
        slope, low, high = _over_trainings(_slopes(a, b))
        of, steps = b.mean(axis=0), strengths if x == "strength" else a.mean(axis=0)
        first, last = np.argmin(steps), np.argmax(steps)
        per = "a step of " if x == "strength" else ""
        return _sign(low, high), (
            f"Over {len(strengths)} models of each training seed the slope of {y_symbol} against {per}{name} is "
            f"{fixed(slope, 3, sign=True)} {between(low, high, 3, sign=True)}; {y_symbol} is {number(of[first])} where "
            f"{name} is smallest ({number(steps[first])}) and {number(of[last])} where it is largest "
            f"({number(steps[last])})."
        )

    return judge


def flattens(cohort: Cohort) -> Judgement:
    rho, alpha = cohort.by_seed("distance"), cohort.by_seed("alignment")
    order = np.argsort(rho.mean(axis=0))
    above, low, high = _over_trainings(_above_chord(rho[:, order], alpha[:, order]))
    return _sign(low, high), (
        "The models between the least and the most robust lie on average "
        f"{fixed(above, 3, sign=True)} {between(low, high, 3, sign=True)} in median α from the straight line between "
        "these two; above it, the rise flattens."
    )


def nearer_than_gradient(cohort: Cohort) -> Judgement:
    others = [name for name in cohort.attacks if name != "gradient"]
    if "gradient" not in cohort.attacks or not others:
        return "not testable", "It needs the gradient attack and at least one other."
    parts: list[str] = []
    statuses: set[Status] = set()
    for name in others:
        value, low, high = _median_ratio(cohort, f"distance_{name}", "distance_gradient")
        parts.append(f"{name} {fixed(value, 3)} {between(low, high, 3)}")
        statuses.add(_sign(1 - high, 1 - low))
    evidence = f"Median of the distance over that of the gradient attack on the same sample: {', '.join(parts)}."
    if len(statuses) == 1:
        return statuses.pop(), evidence
    return "not distinguishable", f"{evidence} The attacks disagree."


def linearized_is_close(cohort: Cohort) -> Judgement:
    value, low, high = _median_ratio(cohort, "linearized_robustness", "distance")
    return _within(low, high, CLOSE), (
        f"The median of ρ̃ / ρ over samples is {fixed(value)} {between(low, high)}, ρ the smallest distance that any "
        f"attack found; close is {CLOSE[0]:g} to {CLOSE[1]:g}."
    )


def correlated(name: str, symbols: str, threshold: float) -> Callable[[Cohort], Judgement]:
    def judge(cohort: Cohort) -> Judgement:
        pair = CORRELATIONS[name]
        kept = cohort.finite(*pair)[cohort.usable].all(axis=(0, 1))
        pairs = int(kept.sum())
        if pairs < 3:
            return "not testable", f"{pairs} of {cohort.n} samples are finite in all models."
        a, b = (cohort.values[quantity][..., kept] for quantity in pair)
        per_model = spearman(a, b)[cohort.usable]
        replicates = cohort.over_seeds(bootstrap_spearman(a, b, resample(pairs, len(cohort.indices))))
        low, high = _bounds(replicates.mean(axis=1))
        return _sign(low - threshold, high - threshold), (
            f"The rank correlation of {symbols} within a model is {fixed(per_model.mean())} on average "
            f"{between(low, high)}, from {fixed(per_model.min())} to {fixed(per_model.max())} over models"
            f"{f'; high is {threshold:g} or more' if threshold else ''}; "
            f"{pairs} of {cohort.n} samples are finite in all of them."
        )

    return judge


def more_linear_more_linked(cohort: Cohort) -> Judgement:
    pair = CORRELATIONS["alignment_distance"]
    kept = cohort.finite(*pair, "deviation")[cohort.usable].all(axis=(0, 1))
    samples = int(kept.sum())
    if samples < 3:
        return "not testable", "Fewer than 3 samples are finite in all models."
    a, b, deviation = (cohort.values[name][cohort.usable][..., kept] for name in (*pair, "deviation"))
    deviations, correlations = median(deviation).T, spearman(a, b).T
    slope, low, high = _over_trainings(_slopes(-deviations, correlations))
    strengths, bend, linked = cohort.strengths[cohort.usable], deviations.mean(axis=0), correlations.mean(axis=0)
    most, least = (
        f"{fixed(linked[k])} in the {name} linear model ({cohort.symbol} = {strengths[k]:g}, median deviation of its "
        f"margin from a straight line {fixed(bend[k], 3)})"
        for name, k in (("most", np.argmin(bend)), ("least", np.argmax(bend)))
    )
    return _sign(low, high), (
        f"Over {len(strengths)} models of each training seed the slope of r(α, ρ) against linearity is "
        f"{fixed(slope, sign=True)} {between(low, high, sign=True)}; r(α, ρ) is {most} and {least}; "
        f"{samples} of {cohort.n} samples are finite in all of them."
    )


def _sign(low: float, high: float) -> Status:
    """What the interval of a quantity says that the claim expects to be positive."""
    if low > 0:
        return "supported"
    return "contradicted" if high < 0 else "not distinguishable"


def _within(low: float, high: float, limits: tuple[float, float]) -> Status:
    """What the interval of a quantity says that the claim expects within ``limits``."""
    if limits[0] <= low and high <= limits[1]:
        return "supported"
    return "contradicted" if high < limits[0] or low > limits[1] else "not distinguishable"


def _bounds(replicates: Array) -> tuple[float, float]:
    low, high = interval(replicates)
    return float(low), float(high)


def _over_trainings(values: Array) -> tuple[float, float, float]:
    """The mean of one number per training seed (R,), and its interval by Student's t."""
    with np.errstate(invalid="ignore"):
        mean, low, high = mean_interval(values)
    return float(mean), float(low), float(high)


def _slopes(x: Array, y: Array) -> Array:
    """The least-squares slope (R,) of y on x, both (R, U); the ranks of what has infinite entries."""
    x, y = (v if np.isfinite(v).all() else rankdata(v, axis=-1) for v in (x, y))
    x, y = (v - v.mean(axis=-1, keepdims=True) for v in (x, y))
    square = (x * x).sum(axis=-1)
    return np.divide((x * y).sum(axis=-1), square, out=np.full(len(square), np.nan), where=square > 0)


def _median_ratio(cohort: Cohort, numerator: str, denominator: str) -> tuple[float, float, float]:
    """The per-sample ratio's median, mean over usable models, and its interval; 1 where both are infinite or 0."""
    a, b = cohort.values[numerator], cohort.values[denominator]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(a == b, 1.0, a / b)
    value = np.median(ratios, axis=-1)[cohort.usable].mean()
    return float(value), *_bounds(cohort.over_seeds(bootstrap_medians(ratios, cohort.indices)).mean(axis=1))


def _above_chord(x: Array, y: Array) -> Array:
    """Mean distance in y (B,) of the inner points of (B, U) from the straight line between the first and the last."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (x[:, 1:-1] - x[:, :1]) / (x[:, -1:] - x[:, :1])
        share[np.isinf(x[:, -1])] = np.nan  # no line leads to an infinite distance
        return (y[:, 1:-1] - (y[:, :1] + share * (y[:, -1:] - y[:, :1]))).mean(axis=1)
