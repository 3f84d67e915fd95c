"""From runs to numbers: medians with intervals, rank correlations, robust accuracy, and medians by class.

Everything costs one sort per column, so that 100,000 samples take seconds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from captum_alignment.metrics import median_interval
from captum_alignment.study.compare._chance import TIMES_CHANCE, exchangeability, shared_by_maps, times_chance
from captum_alignment.study.compare._coordinates import COORDINATES, coordinates
from captum_alignment.study.evaluation import BY_ATTACK, COLUMNS, Run, about
from captum_alignment.study.page import Array, class_name, mean_interval, median, spearman, spearman_interval, wilson

#: Below this share of the best accuracy a model is left out: a collapsed network is never easily attacked.
USABLE = 0.9
#: The medians that the summary reports, besides one distance per attack: of the columns with a title.
QUANTITIES = tuple(field.name for field in COLUMNS if about(field, "title"))
#: Pairs of quantities whose rank correlation over the samples of a model is reported.
CORRELATIONS = {
    "linearized_alignment": ("linearized_robustness", "alignment"),
    "linearized_distance": ("linearized_robustness", "distance"),
    "alignment_distance": ("alignment", "distance"),
}
#: A radius inside which a sample has no adversarial, certified.
LOWER = "lower_bound"
#: What lies between the alignment and the linearized robustness; the three terms sum to it, sample by sample.
GAPS = ("direction_gap", "bias_gap")

#: The medians of a class.
BY_CLASS = ("distance", "linearized_robustness", "alignment")


def summarise_runs(runs: Sequence[Run], epsilons: Sequence[float] = ()) -> pd.DataFrame:
    """One row per run, over its measured samples.

    Runs of a study have their `COORDINATES`. usable is whether the accuracy is at least `USABLE` of the best on the
    same data set; a run without labels counts as usable. n and errors are the numbers of samples that were and were
    not measured; accuracy is that of the labelled ones, and found the share with an adversarial. ``<quantity>`` and
    ``distance_<attack>`` are medians and ``spearman_<pair>`` rank correlations of the ``spearman_<pair>_n`` finite
    pairs; each has its interval, ``_low`` and ``_high``. class_p is small where maps show their image and not only its
    class (`exchangeability`). direction_larger is the share of samples on which the direction gap is the larger one.
    For each of the ``epsilons`` ``robust@<eps>`` is `robust_accuracy`, computed here from the distances, and
    ``certified@<eps>`` `certified_accuracy`.
    """
    summary = pd.DataFrame([_row(run) | _at(run, epsilons) for run in runs])
    of_data = summary["accuracy"].groupby([str(run.config.get("dataset")) for run in runs])
    said: dict[str, Any] = {"run": summary.pop("run")}
    for name in COORDINATES if any(map(coordinates, runs)) else ():
        said[name] = [coordinates(run).get(name, "" if name == "training" else np.nan) for run in runs]
    said["usable"] = ~(summary["accuracy"] < USABLE * of_data.transform("max").to_numpy())
    return pd.concat([pd.DataFrame(said), summary], axis=1)


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run.name, "n": run.measured, "errors": len(run.errors)}
    labelled, distance = run.labelled, run.values("distance")
    row |= _share("accuracy", run.correct[labelled])
    row |= _share("found", np.isfinite(distance[~np.isnan(distance)]))
    for name in (*QUANTITIES, *(f"{BY_ATTACK}{attack}" for attack in run.attacks)):
        row |= _median(run, name, run.values(name))
    row |= _median(run, TIMES_CHANCE, times_chance(run))
    row |= exchangeability(run)
    direction, bias = (np.abs(run.values(name)) for name in GAPS)
    row |= _share("direction_larger", (direction > bias)[np.isfinite(direction) & np.isfinite(bias)])
    for name in CORRELATIONS:
        row |= correlation(run, name)
    return row


def in_norm(text: str, runs: Sequence[Run]) -> str:
    """``text`` with the norm of the distances of ``runs``, where they say it."""
    norms = " or ".join(dict.fromkeys(run.norm for run in runs if run.norm))
    return f"{text} ({norms})" if norms else text


def correlation(run: Run, name: str) -> dict[str, Any]:
    """``spearman_<name>``, its interval and its number of finite pairs."""
    a, b = finite_pair(run, name)
    column = f"spearman_{name}"
    value = float(spearman(a, b)) if len(a) > 2 else np.nan
    return {**_interval(column, value, *spearman_interval(a, b)), f"{column}_n": len(a)}


def finite_pair(run: Run, name: str) -> tuple[Array, Array]:
    """The two quantities of a correlation where both are finite."""
    a, b = (run.values(quantity) for quantity in CORRELATIONS[name])
    kept = np.isfinite(a) & np.isfinite(b)
    return a[kept], b[kept]


def _at(run: Run, epsilons: Sequence[float]) -> dict[str, float]:
    """robust@ and certified@ each of the sizes."""
    eps = np.array(epsilons, dtype=float)
    row = {}
    for name, accuracy in {"robust": robust_accuracy, "certified": certified_accuracy}.items():
        curve = accuracy(run, eps)
        for number, one in enumerate(epsilons):
            row |= _interval(f"{name}@{one:g}", *(float(curve[end][number]) for end in ("share", "low", "high")))
    return row


def is_certified(run: Run) -> bool:
    """Whether any of its samples has a certified lower bound."""
    return LOWER in run.records and bool(run.records[LOWER].notna().any())


def certified_accuracy(run: Run, eps: Array) -> pd.DataFrame:
    """As `robust_accuracy`, of the certified lower bound `LOWER` of the distance, which no attack undercuts."""
    return robust_accuracy(run, eps, LOWER)


def robust_accuracy(run: Run, eps: Array, of: str = "distance") -> pd.DataFrame:
    """The share of samples that are predicted right and farther than each eps from another class, with bounds.

    Of a run without labels, the share farther than eps, whether right or not. A sample without an adversarial has no
    answer and does not count as robust, at any eps; of those with one no ``distance`` is smaller than the true one.
    """
    distance = run.values(of)
    counted, right = ~np.isnan(distance), np.ones(len(distance), dtype=bool)
    if run.labelled.any():
        counted, right = counted & run.labelled, run.correct
    answered = np.isfinite(distance) | (of == LOWER)  # a certificate may well say that there is no adversarial
    reach = np.sort(distance[counted & right & answered])
    kept = len(reach) - np.searchsorted(reach, eps, side="right")
    n = int(counted.sum())
    low, high = wilson(kept, n)
    share = kept / n if n else np.full(len(eps), np.nan)
    return pd.DataFrame({"eps": eps, "share": share, "low": low, "high": high})


def robust_accuracy_over_seeds(runs: Sequence[Run], eps: Array) -> pd.DataFrame:
    """`robust_accuracy` of a run; of several that differ in the training seed alone their mean, by Student's t."""
    curves = [robust_accuracy(run, eps) for run in runs]
    if len(curves) == 1:
        return curves[0]
    share, low, high = mean_interval([curve["share"] for curve in curves])
    return pd.DataFrame({"eps": eps, "share": share, "low": np.maximum(low, 0), "high": np.minimum(high, 1)})


def by_class(run: Run) -> pd.DataFrame:
    """One row per class by label, or by prediction where nothing is labelled: its samples, accuracy and medians."""
    labelled = bool(run.labelled.any())
    frame = pd.DataFrame({name: run.values(name) for name in BY_CLASS})
    frame["class"] = run.values("label" if labelled else "prediction")
    frame["accuracy"] = np.where(run.labelled, run.correct, np.nan)
    rows: list[dict[str, Any]] = [
        {
            "class": int(str(index).partition(".")[0]),
            "name": class_name(run.classes, index),
            "n": len(group),
            "accuracy": group["accuracy"].mean(),
            **{name: float(median(group[name].to_numpy())) for name in BY_CLASS},
        }
        for index, group in frame.groupby("class")
    ]
    return pd.DataFrame(rows, columns=["class", "name", "n", "accuracy", *BY_CLASS])


def _median(run: Run, name: str, values: Array) -> dict[str, float]:
    shared = shared_by_maps(name, values, run.values("null"), run.values("map_null"))
    tensors = [None if array is None else torch.from_numpy(array.copy()) for array in (values, shared)]
    return _interval(name, *median_interval(*tensors))  # pyright: ignore[reportArgumentType] - values are there


def _share(name: str, hits: Array) -> dict[str, float]:
    low, high = wilson(hits.sum(), len(hits))
    return _interval(name, float(hits.mean()) if len(hits) else np.nan, float(low), float(high))


def _interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}
