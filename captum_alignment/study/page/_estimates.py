"""Estimates whose unit is the training, alone or with the samples, and their p-values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from captum_alignment.study.page._statistics import TAIL, Array, Z, interval


class Estimate(NamedTuple):
    """An estimated number, its standard error, and the degrees of freedom of that, for Student's t."""

    value: float
    error: float
    freedom: float

    @property
    def bounds(self) -> tuple[float, float]:
        """Its interval; NaN where the error is unknown."""
        half = float(student.ppf(TAIL, self.freedom)) * self.error
        return self.value - half, self.value + half

    def p_value(self, of: float = 0.0) -> float:
        """How likely a number at least as far from ``of``, on either side, would be if that were the true one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(2 * student.sf(abs(np.float64(self.value) - of) / self.error, self.freedom))


def over_trainings(values: ArrayLike) -> Estimate:
    """The mean of one number per training (R,), the trainings being all that varies; no error for one."""
    found = np.asarray(values, float)
    n = len(found)
    with np.errstate(invalid="ignore"):  # infinite ones have no spread
        error = found.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return Estimate(float(found.mean()), float(error), n - 1.0)


def over_trainings_and_samples(values: ArrayLike, replicates: ArrayLike, samples: int) -> Estimate:
    """The same where samples vary, too: ``replicates`` (B, R) are the numbers under resamples of ``samples`` samples.

    The two variances add up, with the degrees of freedom of their sum (Satterthwaite 1946). A bootstrap over the
    trainings would take their variance for (R - 1) / R of what it is. Of one training only the samples vary.
    """
    trainings = over_trainings(values)
    low, high = interval(np.asarray(replicates, float).mean(axis=1))  # bounds, because a few replicates may be infinite
    with np.errstate(invalid="ignore"):  # infinite bounds leave no error
        of_samples = float(high - low) ** 2 / (2 * Z) ** 2
    of_trainings = np.nan_to_num(trainings.error, nan=0.0) ** 2
    total = of_samples + of_trainings
    if not 0 < total < np.inf:
        return Estimate(trainings.value, float(np.sqrt(total)), samples - 1.0)
    spent = of_samples**2 / (samples - 1) + (of_trainings**2 / trainings.freedom if of_trainings else 0.0)
    return Estimate(trainings.value, float(np.sqrt(total)), total**2 / spent)


def holm(p_values: ArrayLike) -> Array:
    """The p-values (m,) of a family, corrected so that one is below a level by chance as rarely as it says (Holm 1979).

    NaN stays, and counts as no member.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")  # NaN last
    steps = np.arange((~np.isnan(p)).sum(), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order[: len(steps)]] = np.minimum(np.maximum.accumulate(p[order[: len(steps)]] * steps), 1)
    return adjusted
