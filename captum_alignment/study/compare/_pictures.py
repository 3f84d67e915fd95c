"""The figures of the report that compares runs, and what each of them shows."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_alignment.study.compare._attributions import attribution_figure, has_attributions
from captum_alignment.study.compare._diagnosis import residual_sentence
from captum_alignment.study.compare._diagnosis_figures import run_linearity_figure, run_split_figure, run_terms_figure
from captum_alignment.study.compare._figures import beyond_sentence, distribution_figure, robust_accuracy_figure
from captum_alignment.study.compare._scatter import cut_off, one_scale, run_scatter_figure
from captum_alignment.study.compare._summary import CORRELATIONS, finite_pair
from captum_alignment.study.evaluation import ATTRIBUTION, BIAS, Run
from captum_alignment.study.page import PERCENT, gallery_figure

#: What the samples of the gallery have in common, by their kind.
_SHOWN = {"least": "The least robust samples", "most": "The most robust samples", "shown": "Chosen samples"}
#: Dimensions (G, C, H, W) of pictures, which have values in [0, 1].
_PICTURES = 4
_MAPS = ("image", "gradient", "binarized_gradient", "adversarial")


def drawn(runs: Sequence[Run], summary: pd.DataFrame, groups: Sequence[Sequence[Run]]) -> dict[str, tuple[Figure, str]]:
    """The figures of ``runs`` by name, each with what it shows; robust accuracy is that of the ``groups``."""
    biases = any(str(name).startswith(BIAS) for run in runs for name in run.records)
    found: dict[str, tuple[Figure, str]] = {}
    if has_attributions(runs):
        caption = (
            f"Medians with {PERCENT} intervals. How far the alignment is above chance; how much faster than for a "
            "random ranking the probability falls; the rank correlation with the map of a network that has learnt "
            "nothing, near 0 for what explains the network; the largest relative change when the image changes a "
            "little."
        )
        found["attributions"] = attribution_figure(runs), caption
    found |= {
        "distributions": (
            distribution_figure(runs),
            "Of every run the median (dot), the central 50 % (bar) and 90 % (line) of the samples. ∞ is the share of "
            "samples for which there is no such distance; a bar without a right end reaches it. Grey, the chance level "
            "of α: what the maps of other images of the same run would give.",
        ),
        "robust_accuracy": (robust_accuracy_figure(groups), _robust_caption(groups)),
        "linearized_distance": (
            run_scatter_figure(runs, "linearized_distance"),
            "Linearized robustness against the smallest distance found; on the dashed line they are equal. "
            + _scatter_caption(runs, "linearized_distance"),
        ),
        "linearized_alignment": (
            run_scatter_figure(runs, "linearized_alignment"),
            "Linearized robustness against alignment. " + _scatter_caption(runs, "linearized_alignment"),
        ),
        "split": (
            run_split_figure(runs, summary),
            "Left, the split: exact on every sample, shown as medians, which need not add up. Right, the paper’s "
            f"bound, α plus the sizes of two terms: ρ̃ is never above it, and may be far below. All with {PERCENT} "
            "intervals; infinite medians are not shown.",
        ),
        "linearity": (
            run_linearity_figure(runs, summary),
            "Left and middle, median margins: of a linear network they would fall along the dashed line; one that is "
            "below 0 at the end of the step has crossed the boundary before ρ̃. Right, a point is a run with its "
            f"{PERCENT} intervals, the further left the more linear.",
        ),
    }
    if biases:
        found["terms"] = (
            run_terms_figure(runs),
            "The margin over the rival is the sum of what the input and every bias contribute. Shown are the largest "
            "biases of every run; the darker, the larger. A dash: the network has no such term. "
            + residual_sentence(runs),
        )
    return found


def _robust_caption(groups: Sequence[Sequence[Run]]) -> str:
    runs = [group[0] for group in groups]
    unlabelled = [run.name for run in runs if not run.labelled.any()]
    what = "The share of samples that are predicted right and farther than ε from every adversarial that was found"
    if len(unlabelled) == len(runs):
        what = "The share of samples, without labels and so whether right or not, farther than ε from every adversarial"
    elif unlabelled:
        what += f" (without labels, whether right or not: {', '.join(unlabelled)})"
    if any(len(group) > 1 for group in groups):
        what += ", means over training seeds"
    return (
        f"{what}, with {PERCENT} bands point by point. Where none was found a sample has no answer and does not count. "
        "Attacks find distances from above, so a curve is an upper bound: a better attack lowers it."
        + beyond_sentence(runs)
    )


def _scatter_caption(runs: Sequence[Run], name: str) -> str:
    left_out = 0
    for run in runs:
        known = ~np.isnan([run.values(quantity) for quantity in CORRELATIONS[name]]).any(axis=0)
        left_out += int(known.sum()) - len(finite_pair(run, name)[0])
    omitted = f" {left_out:,} infinite points are not shown." if left_out else ""
    if outside := cut_off(runs, name):
        omitted += f" {outside:,} finite points lie outside the axes."
    scales = "" if one_scale(runs, name) else " Runs are so far apart that every panel has a scale of its own."
    what = "A point is a sample; of many, shades show how many. r is the rank correlation, of all points."
    return what + scales + omitted


def galleries(run: Run) -> Iterator[tuple[str, Figure, str]]:
    """The samples of a run that its gallery keeps: their kind, the figure, and what it shows."""
    low, high = _bounds(run)
    shown = np.isin(run.records["sample"].to_numpy(), run.gallery.get("sample", []))
    rows = run.rows(shown).drop_duplicates("sample").set_index("sample")
    for kind in dict.fromkeys(run.gallery["kind"].tolist() if "kind" in run.gallery else ()):
        chosen = (run.gallery["kind"] == kind) & np.isin(run.gallery["sample"], rows.index)
        if not chosen.any():
            continue
        maps = {name: run.gallery[name][chosen] for name in _MAPS}
        if maps["image"].ndim == _PICTURES:  # bars have their sign; saliency and perturbation a scale of their own
            maps |= {name: (maps[name] - low) / (high - low) for name in ("image", "adversarial")}
        records = rows.loc[run.gallery["sample"][chosen]].reset_index().to_dict("records")
        ids = ", ".join(str(record.get("id", record["sample"])) for record in records)
        caption = f"{_SHOWN[kind]} of {run.name}: {ids}."
        more = {name.removeprefix(ATTRIBUTION): of[chosen] for name, of in run.gallery.items() if _is_more(name, run)}
        yield kind, gallery_figure(maps, records, run.classes, more), caption


def _is_more(name: str, run: Run) -> bool:
    """Whether these are the maps of an attribution, and not the saliency that is shown anyway."""
    return name.startswith(ATTRIBUTION) and not np.allclose(run.gallery[name], run.gallery["gradient"], rtol=1e-3)


def _bounds(run: Run) -> tuple[float, float]:
    """The least and the greatest value of an image."""
    bounds = run.config.get("bounds")
    low, high = bounds if isinstance(bounds, list | tuple) and len(bounds) == 2 else (0.0, 1.0)
    return float(low), float(high)
