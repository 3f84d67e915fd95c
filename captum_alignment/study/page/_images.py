"""The gallery: what a network looks at, and what changes its mind."""

import textwrap
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
#: Dimensions of a picture; what has fewer is shown as bars.
_PICTURE = 3
_TITLES = ("saliency", "binarized", "perturbation")


def gallery_figure(
    maps: Mapping[str, Array],
    rows: list[dict[Any, Any]],
    classes: Sequence[str] | None,
    attributions: Mapping[str, Array] | None = None,
) -> Figure:
    """One row per sample: the image, its two saliency maps, the smallest perturbation that any attack found, and more.

    Args:
        maps: image, gradient, binarized_gradient and adversarial, each (G, C, H, W); of tables (G, D) and sequences
            (G, T, D) the rows are bars, one for each of D or T.
        rows: the records of the G samples, in the same order.
        classes: names of the classes; None: they are shown by number.
        attributions: other maps by their name, shown after these.
    """
    more = attributions or {}
    perturbation = maps["adversarial"] - maps["image"]
    captions = [_captions(record, classes) for record in rows]
    lines = max((caption.count("\n") + 1 for row in captions for caption in row), default=1)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height = (0.98 + 0.1 * lines) * len(rows) + 0.2 + 0.1 * lines
        figure = Figure(figsize=(0.925 * (4 + len(more)), height))
        bottom = (0.1 + 0.1 * lines) / height
        titles = [_lines(name) for name in more]
        top = 1 - (0.25 + 0.12 * any("\n" in title for title in titles)) / height
        figure.subplots_adjust(left=0.01, right=0.99, bottom=bottom, top=top, hspace=0.13 + 0.12 * lines)
        panels = figure.subplots(len(rows), 4 + len(more), squeeze=False)
        for g, row in enumerate(captions):
            show_image(panels[g, 0], maps["image"][g])
            signed = (maps["gradient"], maps["binarized_gradient"], perturbation, *more.values())
            for axes, map_ in zip(panels[g, 1:], signed, strict=True):
                show_signed(axes, map_[g])
            for axes, caption in zip(panels[g], row, strict=False):
                axes.set_xlabel(caption, fontsize=7, labelpad=2, color=MUTED)
        first = "image" if np.ndim(maps["image"]) > _PICTURE else "input"
        for axes, title in zip(panels[0], (first, *_TITLES, *titles), strict=True):
            axes.set_title(title, loc="center", fontsize=8, color=INK)
    return figure


def _lines(name: str) -> str:
    """A name as wide as an image, on at most two lines."""
    first, *rest = textwrap.wrap(name, _WIDE - 5) or [""]
    return "\n".join(plain(line, _WIDE - 5) for line in (first, " ".join(rest)) if line)


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
    """An image (C, H, W) with values in [0, 1], without axes; anything with fewer dimensions as bars."""
    if image.ndim < _PICTURE:
        _show_bars(axes, image)
    elif len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
    else:
        axes.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _frame(axes)


def show_signed(axes: Any, values: Array) -> None:
    """A map (C, H, W) without axes: channels summed, blue negative, red positive, white 0; on its own scale."""
    if values.ndim < _PICTURE:
        _show_bars(axes, np.nan_to_num(values))
        return
    total = np.nan_to_num(values).sum(axis=0)
    scale = float(np.quantile(np.abs(total), 0.995)) or 1.0
    axes.imshow(total, cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    _frame(axes)


def _show_bars(axes: Any, values: Array) -> None:
    """One bar for each feature, or for each step of a sequence, blue negative, red positive."""
    heights = values.reshape(len(values), -1).sum(axis=1)
    axes.bar(range(len(heights)), heights, width=1, color=np.where(heights < 0, "#2166ac", "#b2182b"))
    scale = float(np.abs(heights).max()) or 1.0
    axes.set(xlim=(-0.5, len(heights) - 0.5), ylim=(-1.05 * scale, 1.05 * scale), box_aspect=1)
    axes.axhline(0, color="#cccccc", lw=0.5, zorder=0)
    _frame(axes)


def _frame(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#cccccc", linewidth=0.5)
