"""Simulations: how often intervals miss the true value, and verdicts decide where there is nothing to decide."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from captum_alignment.metrics import (
    LEVEL,
    alignment_null,
    alignment_null_of_maps,
    exchangeability_test,
    median_interval,
)
from captum_alignment.study.cohort._claims import CLAIMS, _status
from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.cohort._judges import correlated, linearized_is_close, nearer_than_gradient
from captum_alignment.study.compare import QUANTITIES
from captum_alignment.study.page import Array, holm, mean_interval, resample, spearman, spearman_interval, wilson

Draw = Callable[[np.random.Generator], bool]
#: Trainings differ by so much of a median, as real ones do.
_NOISE = 0.03


@dataclass(frozen=True)
class Kind:
    """A kind of interval or verdict: whether a trial is wrong without any effect, and decided where there is one."""

    name: str
    wrong: Draw
    found: Draw | None = None

    def error(self, trials: int, seed: int = 0) -> float:
        rng = np.random.default_rng(seed)
        return float(np.mean(np.array([self.wrong(rng) for _ in range(trials)])))

    def power(self, trials: int, seed: int = 1) -> float:
        rng = np.random.default_rng(seed)
        return (
            float("nan") if self.found is None else float(np.mean(np.array([self.found(rng) for _ in range(trials)])))
        )


def outside(bounds: tuple[float, ...], true: float) -> bool:
    low, high = bounds[-2:]
    return not low <= true <= high


def cohort(values: dict[str, Array], resamples: int = 300) -> Cohort:
    """A cohort of these per-sample values (S, R, n); what is not given is 1."""
    shape = next(iter(values.values())).shape
    attacks = ("ddn", "gradient")
    names = (*QUANTITIES, "map_null", *(f"distance_{name}" for name in attacks), "times_chance")
    values = {name: np.ones(shape) for name in names} | values
    made = Cohort("lipschitz", np.arange(shape[0]), np.arange(shape[1]), values, np.ones(shape[:2]), attacks, 1.0)
    made.__dict__["indices"] = resample(shape[2], resamples)  # a cached property
    return made


def trainings(effect: float) -> Callable[[np.random.Generator], Cohort]:
    """Three strengths of three seeds; medians grow by ``effect`` of themselves with each strength."""

    def draw(rng: np.random.Generator) -> Cohort:
        steps = np.arange(3).reshape(3, 1, 1)
        spread = 1 + 0.01 * np.cos(np.arange(12))  # the same images in every model
        values = {}
        for name in ("distance", "linearized_robustness", "alignment", "null", "deviation"):
            sign = {"null": 0, "deviation": -1}.get(name, 1)
            values[name] = spread * np.exp(sign * effect * steps + rng.normal(0, _NOISE, (3, 3, 1)))
        values["alignment"] = values["alignment"] * np.exp(rng.normal(0, 0.01, (3, 3, 12)))
        values["excess"] = values["alignment"] - 0.5 * values["null"]
        values["times_chance"] = values["alignment"] / values["null"]
        return cohort(values)

    return draw


def decided(judge: Callable, make: Callable[[np.random.Generator], Cohort]) -> Draw:
    return lambda rng: _status(judge(make(rng))) in ("supported", "contradicted")


def ratios(middle: float, numerator: str, denominator: str) -> Callable[[np.random.Generator], Cohort]:
    """Two strengths of three seeds of 100 images: a ratio of this median, that differs by image and by training."""

    def draw(rng: np.random.Generator) -> Cohort:
        log = rng.normal(0, 0.1, 100) + rng.normal(0, 0.02, (2, 3, 1)) + rng.normal(0, 0.05, (2, 3, 100))
        base = np.exp(rng.normal(0, 0.4, (2, 3, 100)))
        return cohort({numerator: middle * base * np.exp(log), denominator: base})

    return draw


def pairs(rank_correlation: float) -> Callable[[np.random.Generator], Cohort]:
    """The same of two quantities of this rank correlation, which differs a little by training."""

    def draw(rng: np.random.Generator) -> Cohort:
        of_normal = 2 * np.sin(np.pi / 6 * rank_correlation)
        r = np.tanh(np.arctanh(of_normal) + rng.normal(0, 0.05, (2, 3, 1)))
        shared, own = rng.normal(size=(2, 1, 1, 100)), rng.normal(size=(2, 2, 3, 100))
        a, b = np.sqrt(0.7) * shared + np.sqrt(0.3) * own
        return cohort({"linearized_robustness": a, "alignment": r * a + np.sqrt(1 - r * r) * b})

    return draw


def judged(rank_correlation: float, threshold: float) -> Draw:
    return decided(correlated("linearized_alignment", "", threshold), pairs(rank_correlation))


def family(rng: np.random.Generator) -> bool:
    """Whether one of seven trainings that do nothing is decided."""
    judged = [CLAIMS[1].judge(trainings(0.0)(rng)) for _ in range(7)]
    return bool((holm([np.nan if j.p is None else j.p for j in judged]) <= 1 - LEVEL).any())


def chance_level(sign: int) -> Draw:
    """Of images that differ in size and maps that differ in their mean, drawn from 3,000 of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3000, 20, generator=generator) * torch.rand(3000, 1, generator=generator).add(0.5)
    a = torch.randn(3000, 20, generator=generator) + torch.randn(3000, 1, generator=generator) + 0.05 * x
    everything = alignment_null(x, a)
    true = float((everything.null if sign > 0 else everything.excess).median())

    def draw(rng: np.random.Generator) -> bool:
        rows = torch.from_numpy(rng.choice(3000, 100, replace=False))
        found, of_maps = alignment_null(x[rows], a[rows]), alignment_null_of_maps(x[rows], a[rows])
        shared = sign * found.null.median() * (of_maps / of_maps.mean() - 1)
        return outside(median_interval(found.null if sign > 0 else found.excess, shared), true)

    return draw


def exchanged(own: float) -> Draw:
    """Whether maps of three classes, which show ``own`` of their image, are told from templates."""

    def draw(rng: np.random.Generator) -> bool:
        labels = torch.arange(60) % 3
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        templates = torch.rand(3, 20, generator=generator)[labels]
        x = templates + torch.rand(60, 20, generator=generator)
        maps = 3 * templates + torch.randn(60, 20, generator=generator) + own * (x - x.mean(1, keepdim=True))
        return exchangeability_test(x, maps, labels, permutations=199).p_value <= 1 - LEVEL

    return draw


def heavy(rng: np.random.Generator, n: int, r: float) -> tuple[Array, Array]:
    scale = np.sqrt(rng.chisquare(2, size=n))
    a, b = rng.normal(size=(2, n))
    return a / scale, (r * a + np.sqrt(1 - r * r) * b) / scale


_HEAVY = float(spearman(*heavy(np.random.default_rng(0), 1_000_000, 0.9)))

KINDS = [
    Kind("median of 50", lambda rng: outside(median_interval(torch.from_numpy(rng.normal(size=50) ** 3)), 0)),
    Kind("share of 200", lambda rng: outside(tuple(map(float, wilson(rng.binomial(200, 0.9), 200))), 0.9)),
    Kind("mean over 3 trainings", lambda rng: outside(tuple(map(float, mean_interval(rng.normal(size=3)))), 0)),
    Kind("rank correlation of 200, heavy tails", lambda rng: outside(spearman_interval(*heavy(rng, 200, 0.9)), _HEAVY)),
    Kind("median chance level of 100", chance_level(1)),
    Kind("median α − chance of 100", chance_level(-1)),
    Kind("exchangeability test of 60", exchanged(0.0), exchanged(1.0)),
    *(
        Kind(f"verdict: {claim.text}", decided(claim.judge, trainings(0.0)), decided(claim.judge, trainings(0.2)))
        for claim in CLAIMS
        if claim.needs > 1
    ),
    Kind("one verdict of seven trainings, after Holm", family),
    Kind(
        "verdict: Elaborate attacks find smaller distances",
        decided(nearer_than_gradient, ratios(1.0, "distance_ddn", "distance_gradient")),
        decided(nearer_than_gradient, ratios(0.9, "distance_ddn", "distance_gradient")),
    ),
    Kind(
        "verdict: ρ̃ is close to ρ (at the limit 1.25)",
        decided(linearized_is_close, ratios(1.25, "linearized_robustness", "distance")),
        decided(linearized_is_close, ratios(1.1, "linearized_robustness", "distance")),
    ),
    Kind("verdict: ρ̃ and α are correlated", judged(0.0, 0.0), judged(0.4, 0.0)),
    Kind("verdict: highly correlated (at the limit .8)", judged(0.8, 0.8), judged(0.9, 0.8)),
]
