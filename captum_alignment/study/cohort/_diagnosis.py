"""What the records say about why alignment and robustness agree or do not: terms of the margin, and linearity."""

from dataclasses import dataclass

import numpy as np

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.compare import CORRELATIONS, GAPS
from captum_alignment.study.evaluation import BIAS, INPUT, RESIDUAL
from captum_alignment.study.page import Array, bootstrap_medians, bootstrap_spearman, median, number, resample, spearman


@dataclass(frozen=True, eq=False)
class Link:
    """Of the U usable strengths, on the samples that are finite in all their models.

    Attributes:
        deviation: (U,) the median deviation of the margin from the straight line. correlation: (U,) the rank
            correlation of alignment and distance; means over seeds. ``_replicates``: the same (B, U), paired;
            ``_by_seed``: (R, U), before the mean.
        samples: how many there are.
    """

    deviation: Array
    correlation: Array
    deviation_replicates: Array
    correlation_replicates: Array
    deviation_by_seed: Array
    correlation_by_seed: Array
    samples: int


def link(cohort: Cohort) -> Link | None:
    """How linear each model is, and how closely its alignment and robustness are linked; None below 3 samples."""
    pair = CORRELATIONS["alignment_distance"]
    kept = cohort.finite(*pair, "deviation")[cohort.usable].all(axis=(0, 1))
    samples = int(kept.sum())
    if samples < 3:
        return None
    a, b, deviation = (cohort.values[name][..., kept] for name in (*pair, "deviation"))
    indices = resample(samples, len(cohort.indices))
    medians, correlations = median(deviation)[cohort.usable].T, spearman(a, b)[cohort.usable].T
    return Link(
        medians.mean(axis=0),
        correlations.mean(axis=0),
        cohort.over_seeds(bootstrap_medians(deviation, indices)),
        cohort.over_seeds(bootstrap_spearman(a, b, indices)),
        medians,
        correlations,
        samples,
    )


def term_shares(cohort: Cohort) -> dict[str, Array]:
    """Per term of the margin, the input's first, its size relative to the sum of all sizes: {name: (S, R, n)}.

    NaN where all terms are 0.
    """
    names = [name for name in cohort.details if name == INPUT or name.startswith(BIAS)]
    sizes = {name.removeprefix(BIAS): np.abs(cohort.details[name]) for name in names}
    total = np.sum(list(sizes.values()), axis=0)
    known = np.where(total > 0, total, np.nan)
    return {name: size / known for name, size in sizes.items()}


def profiles(cohort: Cohort, prefix: str) -> tuple[Array, Array]:
    """The fractions of the way t (T,) from 0 to 1, and each model's median profile (S, T), mean over seeds."""
    names = [name for name in cohort.details if name.startswith(prefix)]
    t = np.array([0.0, *(float(name.removeprefix(prefix)) for name in names)])
    medians = np.stack([median(cohort.details[name]).mean(axis=1) for name in names], axis=1)
    # By definition 1 at t = 0, unless no sample has a profile.
    return t, np.column_stack([np.where(np.isnan(medians[:, 0]), np.nan, 1.0), medians])


def gaps_sentence(cohort: Cohort) -> str:
    """Which gap is larger on how many samples of the usable models."""
    direction, bias = (int(cohort.larger(*pair)[cohort.usable].sum()) for pair in (GAPS, GAPS[::-1]))
    name, count = ("direction", direction) if direction >= bias else ("bias", bias)
    models = int(cohort.usable_models[cohort.usable].sum())
    return (
        f"The {name} gap is the larger one on {count:,} of {direction + bias:,} samples "
        f"({models} usable model{'s' if models != 1 else ''})."
    )


def residual_sentence(cohort: Cohort) -> str:
    """Whether the named terms explain the whole margin."""
    worst = float(np.nanmax(cohort.details[RESIDUAL]))
    # Half the digits of float32, in which models are measured.
    exact = worst <= np.finfo(np.float32).eps ** 0.5
    return f"What the named terms leave of the margin is at most {number(worst)} of the sum of their sizes: " + (
        "zero up to rounding, as it must be for a piecewise linear network."
        if exact
        else "the network is not piecewise linear, or a term is hidden."
    )
