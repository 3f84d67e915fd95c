"""How each claim of Etmann et al. 2019 is judged: a p-value, and the sentence with the numbers that support it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.compare import CORRELATIONS, TIMES_CHANCE
from captum_alignment.study.page import (
    Array,
    Estimate,
    between,
    bootstrap_medians,
    bootstrap_spearman,
    counted,
    fixed,
    median,
    number,
    over_trainings,
    over_trainings_and_samples,
    resample,
    spearman,
)


class Judgement(NamedTuple):
    """What the numbers say of a claim, its two-sided p-value (None: not testable), and on which side they are."""

    evidence: str
    p: float | None = None
    holds: bool = True


def too_few(least: int, what: str, found: int, which: str = "") -> Judgement:
    """Not testable with so few of ``what``, ``which`` being what else they must be."""
    there = f"there {'is' if found == 1 else 'are'} {found or 'none'}"
    return Judgement(f"It needs at least {counted(least, what)}{which}, and {there}.")


#: A median ratio in this range is called close, a rank correlation from this value on high.
CLOSE = (0.8, 1.25)
HIGH = 0.8
#: With fewer samples, not even all of them on one side of a median decide; and with fewer pairs, no order of the ranks.
_SAMPLES, _PAIRS = 6, 5


def maps_fit_their_image(cohort: Cohort) -> Judgement:
    times, rho = cohort.by_seed(TIMES_CHANCE), cohort.by_seed("distance").mean(axis=0)
    least, most = int(np.argmin(rho)), int(np.argmax(rho))
    strengths, means = cohort.strengths[cohort.usable], times.mean(axis=0)
    difference = over_trainings(times[:, most] - times[:, least])
    return _above_zero(
        difference,
        f"An image aligns {number(means[most])} times as well with its own map as with the maps of other images at "
        f"{cohort.symbol} = {strengths[most]:g}, and {number(means[least])} times at {cohort.symbol} = "
        f"{strengths[least]:g}; the difference is {fixed(difference.value)} {between(*difference.bounds)}.",
    )


def rises(x: str, y: str, x_symbol: str | None, y_symbol: str) -> Callable[[Cohort], Judgement]:
    """Whether ``y`` rises with ``x``, shown as these symbols; None is the symbol of the strength."""

    def judge(cohort: Cohort) -> Judgement:
        name = x_symbol or cohort.symbol
        b = cohort.by_seed(y)
        strengths = cohort.strengths[cohort.usable]
        # Strengths are spread over decades: their order counts.
        a = np.broadcast_to(np.arange(len(strengths)), b.shape) if x == "strength" else cohort.by_seed(x)
        slope = over_trainings(_slopes(a, b))
        of, steps = b.mean(axis=0), strengths if x == "strength" else a.mean(axis=0)
        first, last = np.argmin(steps), np.argmax(steps)
        per = "a step of " if x == "strength" else ""
        return _above_zero(
            slope,
            f"Over {len(strengths)} models of each training seed the slope of {y_symbol} against {per}{name} is "
            f"{fixed(slope.value, 3, sign=True)} {between(*slope.bounds, 3, sign=True)}; {y_symbol} is "
            f"{number(of[first])} where {name} is smallest ({number(steps[first])}) and {number(of[last])} where it is "
            f"largest ({number(steps[last])}).",
        )

    return judge


def flattens(cohort: Cohort) -> Judgement:
    rho, alpha = cohort.by_seed("distance"), cohort.by_seed("alignment")
    order = np.argsort(rho.mean(axis=0))
    above = over_trainings(_above_chord(rho[:, order], alpha[:, order]))
    return _above_zero(
        above,
        "The models between the least and the most robust lie on average "
        f"{fixed(above.value, 3, sign=True)} {between(*above.bounds, 3, sign=True)} in median α from the straight line "
        "between these two; above it, the rise flattens.",
    )


def nearer_than_gradient(cohort: Cohort) -> Judgement:
    others = [name for name in cohort.attacks if name != "gradient"]
    if "gradient" not in cohort.attacks or not others:
        return Judgement("It needs the gradient attack and at least one other.")
    if cohort.n < _SAMPLES:
        return too_few(_SAMPLES, "sample", cohort.n)
    ratios = {name: _median_ratio(cohort, f"distance_{name}", "distance_gradient") for name in others}
    parts = [f"{name} {fixed(ratio.value, 3)} {between(*ratio.bounds, 3)}" for name, ratio in ratios.items()]
    evidence = f"Median of the distance over that of the gradient attack on the same sample: {', '.join(parts)}."
    nearer = [ratio.value < 1 for ratio in ratios.values()]
    if len(set(nearer)) > 1:
        return Judgement(f"{evidence} The attacks disagree.", np.nan)
    # It is of all of them: the largest p decides.
    return Judgement(evidence, float(np.max([ratio.p_value(1) for ratio in ratios.values()])), nearer[0])


def linearized_is_close(cohort: Cohort) -> Judgement:
    if cohort.n < _SAMPLES:
        return too_few(_SAMPLES, "sample", cohort.n)
    ratio = _median_ratio(cohort, "linearized_robustness", "distance")
    close = CLOSE[0] <= ratio.value <= CLOSE[1]
    # Inside it must be far from both limits, outside from the nearer one.
    limits = [ratio.p_value(limit) for limit in CLOSE]
    return Judgement(
        f"The median of ρ̃ / ρ over samples is {fixed(ratio.value)} {between(*ratio.bounds)}, ρ the smallest distance "
        f"that any attack found; close is {CLOSE[0]:g} to {CLOSE[1]:g}.",
        float(np.max(limits)),
        close,
    )


def correlated(name: str, symbols: str, threshold: float) -> Callable[[Cohort], Judgement]:
    def judge(cohort: Cohort) -> Judgement:
        pair = CORRELATIONS[name]
        kept = cohort.finite(*pair)[cohort.usable].all(axis=(0, 1))
        pairs = int(kept.sum())
        if pairs < _PAIRS:
            return too_few(_PAIRS, "sample", pairs, " finite in all models")
        a, b = (cohort.values[quantity][..., kept] for quantity in pair)
        per_model = spearman(a, b)[cohort.usable]
        replicates = bootstrap_spearman(a, b, resample(pairs, len(cohort.indices)))[:, cohort.usable]
        # In Fisher's z, in which the spread of a correlation depends little on its size.
        linked = over_trainings_and_samples(
            _fisher(per_model.mean(axis=0), pairs), _fisher(replicates.mean(axis=1), pairs), pairs
        )
        return Judgement(
            f"The rank correlation of {symbols} within a model is {fixed(np.tanh(linked.value))} on average "
            f"{between(*np.tanh(linked.bounds))}, from {fixed(per_model.min())} to {fixed(per_model.max())} over models"
            f"{f'; high is {threshold:g} or more' if threshold else ''}; "
            f"{pairs} of {cohort.n} samples are finite in all of them.",
            linked.p_value(np.arctanh(threshold)),
            bool(linked.value > np.arctanh(threshold)),
        )

    return judge


def more_linear_more_linked(cohort: Cohort) -> Judgement:
    pair = CORRELATIONS["alignment_distance"]
    kept = cohort.finite(*pair, "deviation")[cohort.usable].all(axis=(0, 1))
    samples = int(kept.sum())
    if samples < _PAIRS:
        return too_few(_PAIRS, "sample", samples, " finite in all models")
    a, b, deviation = (cohort.values[name][cohort.usable][..., kept] for name in (*pair, "deviation"))
    deviations, correlations = median(deviation).T, spearman(a, b).T
    slope = over_trainings(_slopes(-deviations, correlations))
    strengths, bend, linked = cohort.strengths[cohort.usable], deviations.mean(axis=0), correlations.mean(axis=0)
    most, least = (
        f"{fixed(linked[k])} in the {name} linear model ({cohort.symbol} = {strengths[k]:g}, median deviation of its "
        f"margin from a straight line {fixed(bend[k], 3)})"
        for name, k in (("most", np.argmin(bend)), ("least", np.argmax(bend)))
    )
    return _above_zero(
        slope,
        f"Over {len(strengths)} models of each training seed the slope of r(α, ρ) against linearity is "
        f"{fixed(slope.value, sign=True)} {between(*slope.bounds, sign=True)}; r(α, ρ) is {most} and {least}; "
        f"{samples} of {cohort.n} samples are finite in all of them.",
    )


def _above_zero(estimate: Estimate, evidence: str) -> Judgement:
    """Of a claim that expects a positive number."""
    return Judgement(evidence, estimate.p_value(), estimate.value > 0)


def _fisher(correlations: Array, pairs: int) -> Array:
    """Fisher's z; of the correlation 1 that of the next smaller one of so many untied ranks."""
    limit = 1 - 6 / pairs**3
    return np.arctanh(np.clip(correlations, -limit, limit))


def _slopes(x: Array, y: Array) -> Array:
    """The least-squares slope (R,) of y on x, both (R, U); the ranks of what has infinite entries."""
    x, y = (v if np.isfinite(v).all() else rankdata(v, axis=-1) for v in (x, y))
    x, y = (v - v.mean(axis=-1, keepdims=True) for v in (x, y))
    square = (x * x).sum(axis=-1)
    return np.divide((x * y).sum(axis=-1), square, out=np.full(len(square), np.nan), where=square > 0)


def _median_ratio(cohort: Cohort, numerator: str, denominator: str) -> Estimate:
    """The per-sample ratio's median, mean over usable models; 1 where both are infinite or 0."""
    a, b = cohort.values[numerator], cohort.values[denominator]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(a == b, 1.0, a / b)[cohort.usable]
    by_seed = np.median(ratios, axis=-1).mean(axis=0)
    return over_trainings_and_samples(by_seed, bootstrap_medians(ratios, cohort.indices).mean(axis=1), cohort.n)


def _above_chord(x: Array, y: Array) -> Array:
    """Mean distance in y (B,) of the inner points of (B, U) from the straight line between the first and the last."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (x[:, 1:-1] - x[:, :1]) / (x[:, -1:] - x[:, :1])
        share[np.isinf(x[:, -1])] = np.nan  # no line leads to an infinite distance
        return (y[:, 1:-1] - (y[:, :1] + share * (y[:, -1:] - y[:, :1]))).mean(axis=1)
