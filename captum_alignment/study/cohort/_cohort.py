"""From records to the cohort: medians per model, their bootstrap replicates, and the summary table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.compare import CORRELATIONS, GAPS, QUANTITIES, USABLE
from captum_alignment.study.evaluation import BACK, BIAS, FORWARD, INPUT, RESIDUAL
from captum_alignment.study.page import (
    Array,
    bootstrap_medians,
    bootstrap_spearman,
    interval,
    median,
    resample,
    spearman,
)

#: alignment / null, the alignment in units of its chance level; derived from the records.
TIMES_CHANCE = "times_chance"
_PREFIX = "distance_"


@dataclass(frozen=True, eq=False)
class Cohort:
    """Per-sample values of S strengths x R training seeds on n common samples.

    Attributes:
        strengths, seeds: (S,), (R,). values: {quantity: (S, R, n)}. accuracy: (S, R).
        attacks: those that ran on every sample; only they have comparable medians.
        details: {column of `explain`: (S, R, n)}, the terms and the profiles, which the summary leaves out.
        symbol: of the strength.
    """

    strengths: Array
    seeds: Array
    values: Mapping[str, Array]
    accuracy: Array
    attacks: tuple[str, ...]
    details: Mapping[str, Array]
    symbol: str = "λ"

    @property
    def n(self) -> int:
        return self.values["distance"].shape[-1]

    @cached_property
    def usable_models(self) -> Array:
        """(S, R): accuracy of at least `USABLE` of the best."""
        return np.asarray(self.accuracy >= USABLE * self.accuracy.max(), dtype=bool)

    @cached_property
    def usable(self) -> Array:
        """(S,): strengths all of whose models are usable; the others take no part in verdicts."""
        return np.asarray(np.all(self.usable_models, axis=1))

    @cached_property
    def indices(self) -> Array:
        """(B, n): the samples of each bootstrap replicate, the same for all models and quantities."""
        return resample(self.n)

    @cached_property
    def seed_indices(self) -> Array:
        """(B, R): the seeds of each replicate; all replicates are alike where there is one seed."""
        return resample(len(self.seeds), len(self.indices), seed=1)

    @cached_property
    def medians(self) -> dict[str, Array]:
        """{quantity: (S, R)}."""
        return {name: median(values) for name, values in self.values.items()}

    @cached_property
    def replicates(self) -> dict[str, Array]:
        """{quantity: (B, S, R)}: bootstrapped medians."""
        return {name: bootstrap_medians(values, self.indices) for name, values in self.values.items()}

    def levels(self, name: str) -> tuple[Array, Array]:
        """The median of a quantity at each of the U usable strengths, mean over seeds: (U,), replicates (B, U)."""
        return self.medians[name][self.usable].mean(axis=1), self.over_seeds(self.replicates[name])

    def by_seed(self, name: str) -> Array:
        """(R, U): the median of a quantity in each training, at the usable strengths."""
        return self.medians[name][self.usable].T

    def over_seeds(self, replicates: Array) -> Array:
        """Replicates (B, S, R) as means (B, U) over resampled seeds at the usable strengths."""
        drawn = np.take_along_axis(replicates[:, self.usable], self.seed_indices[:, None, :], axis=2)
        return drawn.mean(axis=2)

    def finite(self, *names: str) -> Array:
        """(S, R, n): samples at which all of these quantities are finite."""
        return np.logical_and.reduce([np.isfinite(self.values[name]) for name in names])

    def larger(self, name: str, other: str) -> Array:
        """(S, R): the number of samples on which |name| is larger than |other|, both finite."""
        more = np.abs(self.values[name]) > np.abs(self.values[other])
        return np.asarray((more & self.finite(name, other)).sum(axis=-1))


def cohort_of(records: pd.DataFrame, symbol: str = "λ") -> Cohort:
    """The cohort that ``records`` (one row per model and sample) describe, its strengths called ``symbol``.

    Raises:
        ValueError: the models were not evaluated on the same samples.
    """
    records = records.sort_values(["strength", "training_seed", "sample"], kind="stable")
    strengths, seeds = np.unique(records["strength"]), np.unique(records["training_seed"])
    n = records["sample"].nunique()
    expected = np.tile(np.unique(records["sample"]), len(strengths) * len(seeds))
    if not np.array_equal(records["sample"].to_numpy(), expected):
        raise ValueError("records: the models were evaluated on different samples, expected the same for all")
    shape = (len(strengths), len(seeds), n)
    # An attack that did not run on every sample has no median to compare.
    attacks = tuple(str(name) for name in records if str(name).startswith(_PREFIX) and records[name].notna().all())
    values = {name: records[name].to_numpy(float).reshape(shape) for name in (*QUANTITIES, *attacks)}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values["alignment"] / values["null"]
    values[TIMES_CHANCE] = np.where(
        np.isnan(ratio), 1.0, ratio
    )  # 0 / 0: a model without gradient, no better than chance
    correct = (records["label"] == records["prediction"]).to_numpy().reshape(shape)
    attacks = tuple(name.removeprefix(_PREFIX) for name in attacks)
    columns = [c for c in records if c in (INPUT, RESIDUAL) or str(c).startswith((BIAS, FORWARD, BACK))]
    details = {str(name): records[name].to_numpy(float).reshape(shape) for name in columns}
    return Cohort(strengths, seeds, values, correct.mean(axis=-1), attacks, details, symbol)


def summarise(cohort: Cohort) -> pd.DataFrame:
    """One row per model: accuracy, medians with intervals, rank correlations with intervals and pairs.

    ``<quantity>`` is a median over the samples, ``<quantity>_low`` and ``_high`` its 95 % bootstrap interval;
    ``found`` is the share of samples with an adversarial, ``spearman_<pair>_n`` the number of finite pairs,
    ``direction_larger`` and ``bias_larger`` the number of samples on which that gap is the larger one.
    """
    ranges = {name: interval(replicates) for name, replicates in cohort.replicates.items()}
    direction, bias = (cohort.larger(*pair) for pair in (GAPS, GAPS[::-1]))
    rows = []
    for s, strength in enumerate(cohort.strengths):
        for r, seed in enumerate(cohort.seeds):
            row: dict[str, Any] = {
                "strength": strength,
                "training_seed": seed,
                "accuracy": cohort.accuracy[s, r],
                "usable": bool(cohort.usable_models[s, r]),
                "found": np.isfinite(cohort.values["distance"][s, r]).mean(),
            }
            for name, medians in cohort.medians.items():
                row |= _with_interval(name, medians[s, r], ranges[name][0][s, r], ranges[name][1][s, r])
            row |= {"direction_larger": int(direction[s, r]), "bias_larger": int(bias[s, r])}
            for name in CORRELATIONS:
                row |= _correlation(cohort, name, s, r)
            rows.append(row)
    return pd.DataFrame(rows)


def _correlation(cohort: Cohort, name: str, s: int, r: int) -> dict[str, Any]:
    pair = CORRELATIONS[name]
    kept = cohort.finite(*pair)[s, r]
    a, b = (cohort.values[quantity][s, r, kept] for quantity in pair)
    column, pairs = f"spearman_{name}", int(kept.sum())
    if pairs < 3:
        return {**_with_interval(column, np.nan, np.nan, np.nan), f"{column}_n": pairs}
    low, high = interval(bootstrap_spearman(a, b, resample(pairs)))
    return {**_with_interval(column, float(spearman(a, b)), float(low), float(high)), f"{column}_n": pairs}


def _with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def shown_models(cohort: Cohort) -> list[tuple[int, int]]:
    """The indices (strength, seed) of the least and the most robust usable model; one where there is only one."""
    medians = np.where(cohort.usable_models, cohort.medians["distance"], np.nan)
    least, most = np.nanargmin(medians), np.nanargmax(medians)
    return [
        (int(flat) // medians.shape[1], int(flat) % medians.shape[1]) for flat in dict.fromkeys((int(least), int(most)))
    ]
