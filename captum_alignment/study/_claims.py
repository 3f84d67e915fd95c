"""One verdict per claim of Etmann et al. 2019, from paired-bootstrap intervals over the common samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from captum_alignment.study._statistics import (
    Array,
    bootstrap_medians,
    bootstrap_spearman,
    interval,
    resample,
    spearman,
)
from captum_alignment.study._summary import CORRELATIONS, TIMES_CHANCE, Cohort
from captum_alignment.study._text import between, fixed, number

Status = Literal["supported", "contradicted", "not distinguishable", "not testable"]
#: What a claim is judged by: the status and the sentence with the numbers.
Judgement: TypeAlias = tuple[Status, str]

#: A median ratio in this range is called close, a rank correlation from this value on high.
CLOSE = (0.8, 1.25)
HIGH = 0.8


@dataclass(frozen=True)
class Verdict:
    """A claim, the figure of the paper that makes it, and what this study says about it."""

    claim: str
    figure: str
    status: Status
    evidence: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.status}. {self.evidence}"


@dataclass(frozen=True)
class _Claim:
    text: str
    figure: str
    needs: int  # usable strengths; fewer than three points are always in some order
    judge: Callable[[Cohort], Judgement]


def verdicts(cohort: Cohort) -> list[Verdict]:
    """One `Verdict` per claim, in the order of the paper's figures. Only usable strengths take part."""
    found = int(cohort.usable.sum())
    results = []
    for claim in _CLAIMS:
        few: Judgement = ("not testable", f"It needs at least {claim.needs} usable strengths, and there are {found}.")
        results.append(Verdict(claim.text, claim.figure, *(claim.judge(cohort) if found >= claim.needs else few)))
    return results


def basis(cohort: Cohort) -> str:
    """What the verdicts rest on, as one sentence."""
    models = int(cohort.usable_models[cohort.usable].sum())
    trainings = "one training seed" if len(cohort.seeds) == 1 else f"{len(cohort.seeds)} training seeds, resampled too"
    warning = ", so they say nothing about how another training would turn out" if len(cohort.seeds) == 1 else ""
    return (
        f"Verdicts come from 95 % intervals of a paired bootstrap over the {cohort.n} common samples of "
        f"{models} usable model{'s' if models != 1 else ''} ({trainings}{warning})."
    )


def _maps_fit_their_image(cohort: Cohort) -> Judgement:
    times, replicates = cohort.levels(TIMES_CHANCE)
    rho, _ = cohort.levels("distance")
    least, most = int(np.argmin(rho)), int(np.argmax(rho))
    strengths = cohort.strengths[cohort.usable]
    low, high = _bounds(replicates[:, most] - replicates[:, least])
    return _sign(low, high), (
        f"An image aligns {number(times[most])} times as well with its own map as with the maps of other images at "
        f"λ = {strengths[most]:g}, and {number(times[least])} times at λ = {strengths[least]:g}; the difference is "
        f"{fixed(times[most] - times[least])} {between(low, high)}."
    )


def _rises(x: str, y: str, x_symbol: str, y_symbol: str) -> Callable[[Cohort], Judgement]:
    show = "{:g}".format if x == "strength" else number

    def judge(cohort: Cohort) -> Judgement:
        (a, a_replicates), (b, b_replicates) = _levels(cohort, x), _levels(cohort, y)
        low, high = _bounds(spearman(a_replicates, b_replicates))
        first, last = np.argmin(a), np.argmax(a)
        return _sign(low, high), (
            f"Over {len(a)} models the rank correlation of {x_symbol} and {y_symbol} is {fixed(spearman(a, b))} "
            f"{between(low, high)}; {y_symbol} is {number(b[first])} where {x_symbol} is smallest ({show(a[first])}) "
            f"and {number(b[last])} where it is largest ({show(a[last])})."
        )

    return judge


def _flattens(cohort: Cohort) -> Judgement:
    (rho, rho_replicates), (alpha, alpha_replicates) = cohort.levels("distance"), cohort.levels("alignment")
    order = np.argsort(rho)
    above = _above_chord(rho[None, order], alpha[None, order])[0]
    low, high = _bounds(_above_chord(rho_replicates[:, order], alpha_replicates[:, order]))
    return _sign(low, high), (
        "The models between the least and the most robust lie on average "
        f"{fixed(above, 3, sign=True)} {between(low, high, 3, sign=True)} in median α from the straight line between "
        "these two; above it, the rise flattens."
    )


def _nearer_than_gradient(cohort: Cohort) -> Judgement:
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


def _linearized_is_close(cohort: Cohort) -> Judgement:
    value, low, high = _median_ratio(cohort, "linearized_robustness", "distance")
    inside, outside = low >= CLOSE[0] and high <= CLOSE[1], high < CLOSE[0] or low > CLOSE[1]
    return "supported" if inside else "contradicted" if outside else "not distinguishable", (
        f"The median of ρ̃ / ρ over samples is {fixed(value)} {between(low, high)}, ρ the smallest distance that any "
        f"attack found; close is {CLOSE[0]:g} to {CLOSE[1]:g}."
    )


def _correlated(name: str, symbols: str, threshold: float) -> Callable[[Cohort], Judgement]:
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


_CLAIMS = (
    _Claim("The saliency maps of the most robust model fit their own image better", "Fig. 1", 2, _maps_fit_their_image),
    _Claim("Regularization raises robustness", "Fig. 2, 3", 3, _rises("strength", "distance", "λ", "median ρ")),
    _Claim("Alignment rises with robustness", "Fig. 2, 3", 3, _rises("distance", "alignment", "median ρ", "median α")),
    _Claim(
        "Alignment beyond its chance level rises with robustness",
        "Fig. 2, 3",
        3,
        _rises("distance", "excess", "median ρ", "median α − chance"),
    ),
    _Claim(
        "Alignment rises with linearized robustness",
        "Fig. 2, 3",
        3,
        _rises("linearized_robustness", "alignment", "median ρ̃", "median α"),
    ),
    _Claim("The rise of alignment flattens at the robust end", "Fig. 2, MNIST", 3, _flattens),
    _Claim("Elaborate attacks find smaller distances than the gradient attack", "Fig. 2, 3", 1, _nearer_than_gradient),
    _Claim("Linearized robustness ρ̃ is close to the distances that attacks find", "Fig. 2, 3", 1, _linearized_is_close),
    _Claim(
        "Sample by sample, linearized robustness and alignment are correlated",
        "Fig. 4, MNIST",
        1,
        _correlated("linearized_alignment", "ρ̃ and α", 0.0),
    ),
    _Claim(
        "Sample by sample, linearized robustness and distance are highly correlated",
        "Fig. 5",
        1,
        _correlated("linearized_distance", "ρ̃ and ρ", HIGH),
    ),
)


def _sign(low: float, high: float) -> Status:
    """What the interval of a quantity says that the claim expects to be positive."""
    if low > 0:
        return "supported"
    return "contradicted" if high < 0 else "not distinguishable"


def _bounds(replicates: Array) -> tuple[float, float]:
    low, high = interval(replicates)
    return float(low), float(high)


def _levels(cohort: Cohort, name: str) -> tuple[Array, Array]:
    if name != "strength":
        return cohort.levels(name)
    strengths = cohort.strengths[cohort.usable]
    return strengths, np.broadcast_to(strengths, (len(cohort.indices), len(strengths)))


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
