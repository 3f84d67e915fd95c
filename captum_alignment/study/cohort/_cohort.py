"""The runs of one training as arrays over strengths, seeds and samples, on which verdicts rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np

from captum_alignment.study.compare import QUANTITIES, TIMES_CHANCE, USABLE, coordinates, shared_by_maps, times_chance
from captum_alignment.study.evaluation import BY_ATTACK, Run
from captum_alignment.study.fit import STANDARD, TRAININGS
from captum_alignment.study.page import Array, bootstrap_medians, interval, median, resample


@dataclass(frozen=True, eq=False)
class Cohort:
    """Per-sample values of S strengths x R training seeds on n common samples.

    Attributes:
        training: one of `TRAININGS`. strengths, seeds: (S,), (R,). values: {quantity: (S, R, n)}. accuracy: (S, R).
        attacks: those that ran on every sample; only they have comparable medians.
        best: the accuracy of the study's best network.
    """

    training: str
    strengths: Array
    seeds: Array
    values: Mapping[str, Array]
    accuracy: Array
    attacks: tuple[str, ...]
    best: float

    @property
    def symbol(self) -> str:
        """Of the strength."""
        return TRAININGS[self.training].symbol

    @property
    def n(self) -> int:
        return self.values["distance"].shape[-1]

    @cached_property
    def usable(self) -> Array:
        """(S,): strengths all of whose networks are accurate enough; the others take no part in verdicts."""
        return np.all(self.accuracy >= USABLE * self.best, axis=1)

    @cached_property
    def indices(self) -> Array:
        """(B, n): the samples of each bootstrap replicate, the same for all models and quantities."""
        return resample(self.n)

    @cached_property
    def medians(self) -> dict[str, Array]:
        """{quantity: (S, R)}."""
        return {name: median(values) for name, values in self.values.items()}

    def by_seed(self, name: str) -> Array:
        """(R, U): the median of a quantity in each training, at the U usable strengths."""
        return self.medians[name][self.usable].T

    def level(self, name: str) -> tuple[Array, Array, Array]:
        """The mean over seeds of a quantity's medians (S,), and its interval over samples."""
        values, replicates = self.values[name], bootstrap_medians(self.values[name], self.indices)
        shared = shared_by_maps(name, values, self.values["null"], self.values["map_null"])
        if shared is not None:
            replicates = replicates + np.moveaxis(shared[..., self.indices].mean(axis=-1), -1, 0)
        low, high = interval(replicates.mean(axis=2))
        return self.medians[name].mean(axis=1), low, high

    def finite(self, *names: str) -> Array:
        """(S, R, n): samples at which all of these quantities are finite."""
        return np.logical_and.reduce([np.isfinite(self.values[name]) for name in names])


def make_cohorts(runs: Sequence[Run], trainings: Sequence[str]) -> list[Cohort]:
    """A cohort of each of ``trainings``; the plain networks are in all of them.

    Raises:
        ValueError: the networks were not evaluated on the same samples.
    """
    if any(not np.array_equal(one.records["sample"], other.records["sample"]) for one, other in pairwise(runs)):
        raise ValueError("runs: the networks were evaluated on different samples, expected the same for all")
    common = reduce(np.intersect1d, [run.values("sample") for run in runs])
    best = max(float(run.correct.mean()) for run in runs)
    return [_cohort(runs, training, common, best) for training in trainings]


def _cohort(runs: Sequence[Run], training: str, common: Array, best: float) -> Cohort:
    found = {
        (at["strength"], at["training_seed"]): run
        for run in runs
        if (at := coordinates(run))["training"] in (training, STANDARD)
    }
    strengths, seeds = (np.unique([key[axis] for key in found]) for axis in (0, 1))
    grid = [[found[strength, seed] for seed in seeds] for strength in strengths]
    shared = [attack for attack in grid[0][0].attacks if all(attack in run.attacks for run in found.values())]

    def stacked(values: str) -> Array:
        of = times_chance if values == TIMES_CHANCE else lambda run: run.values(values)
        return np.array([[of(run)[np.isin(run.values("sample"), common)] for run in row] for row in grid])

    names = (*QUANTITIES, "map_null", *(BY_ATTACK + attack for attack in shared), TIMES_CHANCE)
    accuracy = np.array([[run.correct.mean() for run in row] for row in grid])
    values = {name: stacked(name) for name in names}
    return Cohort(training, strengths, seeds, values, accuracy, tuple(shared), best)
