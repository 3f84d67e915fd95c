"""The gallery: what a network looks at, and what changes its mind."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_alignment.study.page._statistics import Array
from captum_alignment.study.page._style import INK, MUTED, STYLE, plain
from captum_alignment.study.page._text import class_name, fixed

#: Letters of a caption that fit below an image.
_WIDE = 18
_TITLES = ("image", "saliency", "binarized", "perturbation")


def gallery_figure(maps: Mapping[str, Array], rows: list[dict[Any, Any]], classes: Sequence[str] | None) -> Figure:
    """One row per sample: the image, its two saliency maps, and the smallest perturbation that any attack found.

    Args:
        maps: image, gradient, binarized_gradient and adversarial, each (G, C, H, W).
        rows: the records of the G samples, in the same order.
        classes: names of the classes; None: they are shown by number.
    """
    perturbation = maps["adversarial"] - maps["image"]
    captions = [_captions(record, classes) for record in rows]
    lines = max((caption.count("\n") + 1 for row in captions for caption in row), default=1)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height = (0.98 + 0.1 * lines) * len(rows) + 0.2 + 0.1 * lines
        figure = Figure(figsize=(3.7, height))
        bottom = (0.1 + 0.1 * lines) / height
        figure.subplots_adjust(left=0.01, right=0.99, bottom=bottom, top=1 - 0.25 / height, hspace=0.13 + 0.12 * lines)
        panels = figure.subplots(len(rows), 4, squeeze=False)
        for g, row in enumerate(captions):
            show_image(panels[g, 0], maps["image"][g])
            for axes, signed in zip(
                panels[g, 1:], (maps["gradient"][g], maps["binarized_gradient"][g], perturbation[g]), strict=True
            ):
                show_signed(axes, signed)
            for axes, caption in zip(panels[g], row, strict=True):
                axes.set_xlabel(caption, fontsize=7, labelpad=2, color=MUTED)
        for axes, title in zip(panels[0], _TITLES, strict=True):
            axes.set_title(title, loc="center", fontsize=8, color=INK)
    return figure


def _captions(record: dict[Any, Any], classes: Sequence[str] | None) -> list[str]:
    """What stands below each of the four images; what is wider than an image is on two lines."""
    rival, linearized = _named(record["rival"], classes), _brief(record["linearized_robustness"])
    captions = (
        _class(record, classes),
        f"α = {_brief(record['alignment'])}",
        f"vs {rival}, ρ̃ = {linearized}",
        f"ρ = {_brief(record['distance'])}" if np.isfinite(record["distance"]) else "none found",
    )
    return [text if len(text) <= _WIDE else text.replace(", ρ̃", ",\nρ̃").replace(" (is", "\n(is") for text in captions]


def _class(record: dict[Any, Any], classes: Sequence[str] | None) -> str:
    predicted, label = record["prediction"], record["label"]
    known = _named(predicted, classes)
    return known if pd.isna(label) or label == predicted else f"{known} (is {_named(label, classes)})"


def _named(index: Any, classes: Sequence[str] | None) -> str:
    return plain(class_name(classes, index), 13)


def _brief(value: float) -> str:
    """Two decimals, or two digits of what is smaller."""
    return f"{value:#.2g}" if 0 < abs(value) < 0.1 else fixed(value)


def show_image(axes: Any, image: Array) -> None:
    """An image (C, H, W) with values in [0, 1], without axes."""
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
    else:
        axes.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _frame(axes)


def show_signed(axes: Any, values: Array) -> None:
    """A map (C, H, W) without axes: channels summed, blue negative, red positive, white 0; on its own scale."""
    total = np.nan_to_num(values).sum(axis=0)
    scale = float(np.quantile(np.abs(total), 0.995)) or 1.0
    axes.imshow(total, cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    _frame(axes)


def _frame(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#cccccc", linewidth=0.5)
