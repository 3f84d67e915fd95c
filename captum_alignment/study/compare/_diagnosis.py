"""What the records of runs say about why alignment and robustness differ: terms of the margin, and its profile."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from captum_alignment.study.evaluation import BIAS, INPUT, RESIDUAL, Run
from captum_alignment.study.page import Array, median, number

#: Biases that are shown by name.
_TERMS = 12
OTHERS = "all others"


def top_terms(runs: Sequence[Run]) -> pd.DataFrame:
    """Median shares of the sum of all sizes: the input first, the largest biases, and the others summed, per run.

    Every run's largest comes before any run's second largest, so that each run is shown something of its own. NaN
    where a run has no such term.
    """
    shares = [_median_shares(run) for run in runs]
    table = pd.DataFrame(dict(enumerate(shares)))
    biases = table.drop(index=INPUT, errors="ignore")
    order = pd.DataFrame({"rank": biases.rank(ascending=False).min(axis=1), "share": -biases.max(axis=1)})
    top = order.sort_values(["rank", "share"], kind="stable").index[:_TERMS]
    top = [str(name) for name in biases.loc[top].max(axis=1).sort_values(ascending=False, kind="stable").index]
    shown = table.reindex([INPUT, *top])
    if len(biases) > len(top):
        shown.loc[OTHERS] = [_rest(run, {INPUT, *top}) for run in runs]
    return shown.rename(index=lambda name: str(name).removeprefix(BIAS))


def run_profile(run: Run, prefix: str) -> tuple[Array, Array]:
    """The fractions of the way t (T,) from 0 to 1, and the median profile (T,)."""
    names = [str(name) for name in run.records if str(name).startswith(prefix)]
    t = np.array([0.0, *(float(name.removeprefix(prefix)) for name in names)])
    medians = np.array([float(median(run.values(name))) for name in names])
    # By definition 1 at t = 0, unless no sample has a profile.
    start = 1.0 if len(medians) and not np.isnan(medians[0]) else np.nan
    return t, np.array([start, *medians])


def residual_sentence(runs: Sequence[Run]) -> str:
    """Whether the named terms explain the whole margin of every run."""
    # Half the digits of float32, in which models are measured.
    exact = np.finfo(np.float32).eps ** 0.5
    worst = {run.name: np.nanmax(run.values(RESIDUAL), initial=-1.0) for run in runs}
    known = {name: value for name, value in worst.items() if value >= 0}
    curved = [f"{name} ({number(value)})" for name, value in known.items() if value > exact]
    if not known:
        return ""
    if not curved:
        return (
            f"What the named terms leave of the margin is at most {number(max(known.values()))} of the sum of their "
            "sizes: zero up to rounding, as it must be for piecewise linear networks."
        )
    return (
        "The named terms do not explain the whole margin where the network is not piecewise linear, or a term is "
        f"hidden; the largest part that they leave, relative to the sum of their sizes: {', '.join(curved)}."
    )


def _columns(run: Run) -> list[str]:
    return [str(name) for name in run.records if name == INPUT or str(name).startswith(BIAS)]


def _total(run: Run) -> Array:
    """(n,) the sum of the sizes of all terms, NaN where it is 0. One column at a time: there may be hundreds."""
    total = np.zeros(run.measured)
    for name in _columns(run):
        total += np.abs(run.values(name))
    return np.where(total > 0, total, np.nan)


def _median_shares(run: Run) -> pd.Series:
    total = _total(run)
    return pd.Series({name: median(np.abs(run.values(name)) / total) for name in _columns(run)}, dtype=float)


def _rest(run: Run, shown: set[str]) -> float:
    """The median over samples of the share of all terms that are not ``shown``."""
    names = [name for name in _columns(run) if name not in shown]
    sizes = sum((np.abs(run.values(name)) for name in names), np.zeros(run.measured))
    return float(median(sizes / _total(run))) if names else np.nan
