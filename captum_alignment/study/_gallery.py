"""The gallery: what the least and the most robust usable model look at, and what changes their mind."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from captum_alignment.study._figures import INK, MUTED, STYLE
from captum_alignment.study._statistics import Array
from captum_alignment.study._summary import Cohort

_TITLES = ("image", "saliency", "binarized", "perturbation")


def shown_models(cohort: Cohort) -> list[tuple[int, int]]:
    """The indices (strength, seed) of the least and the most robust usable model; one where there is only one."""
    medians = np.where(cohort.usable_models, cohort.medians["distance"], np.nan)
    least, most = np.nanargmin(medians), np.nanargmax(medians)
    return [
        (int(flat) // medians.shape[1], int(flat) % medians.shape[1]) for flat in dict.fromkeys((int(least), int(most)))
    ]


def gallery_figure(maps: Mapping[str, Array], rows: list[dict[Any, Any]], classes: tuple[str, ...]) -> Figure:
    """One row per sample: the image, its two saliency maps, and the smallest perturbation that any attack found.

    Args:
        maps: image, gradient, binarized_gradient and adversarial, each (G, C, H, W).
        rows: the records of the G samples, in the same order.
        classes: names of the classes.
    """
    perturbation = maps["adversarial"] - maps["image"]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height = 1.08 * len(rows) + 0.3
        figure = Figure(figsize=(3.7, height))
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.2 / height, top=1 - 0.25 / height, hspace=0.25)
        panels = figure.subplots(len(rows), 4, squeeze=False)
        for g, record in enumerate(rows):
            _show_image(panels[g, 0], maps["image"][g])
            for axes, signed in zip(
                panels[g, 1:], (maps["gradient"][g], maps["binarized_gradient"][g], perturbation[g]), strict=True
            ):
                _show_signed(axes, signed)
            found = np.isfinite(record["distance"])
            captions = (
                _class(record, classes),
                f"α = {record['alignment']:.2f}",
                f"vs {classes[int(record['rival'])]}, ρ̃ = {record['linearized_robustness']:.2f}",
                f"ρ = {record['distance']:.2f}" if found else "none found",
            )
            for axes, caption in zip(panels[g], captions, strict=True):
                axes.set_xlabel(caption, fontsize=7, labelpad=2, color=MUTED)
        for axes, title in zip(panels[0], _TITLES, strict=True):
            axes.set_title(title, loc="center", fontsize=8, color=INK)
    return figure


def _class(record: dict[Any, Any], classes: tuple[str, ...]) -> str:
    predicted, label = classes[int(record["prediction"])], classes[int(record["label"])]
    return predicted if predicted == label else f"{predicted} (is {label})"


def _show_image(axes: Any, image: Array) -> None:
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
    else:
        axes.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _frame(axes)


def _show_signed(axes: Any, values: Array) -> None:
    """Channels summed, blue negative, red positive, white 0; each map on its own scale."""
    total = values.sum(axis=0)
    scale = float(np.quantile(np.abs(total), 0.995)) or 1.0
    axes.imshow(total, cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    _frame(axes)


def _frame(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#cccccc", linewidth=0.5)
