"""The saliency that is asked for its faithfulness: gradients, as they are and without their signs."""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor

from captum_alignment.metrics import alignment_null, median_interval
from captum_alignment.study.load import MapFunction


def gradients_of(model: Callable[[Tensor], Tensor]) -> MapFunction:
    """The signed gradient of the score of the class that ``model`` itself predicts."""

    def gradient(images: Tensor, _targets: Tensor) -> Tensor:
        with torch.no_grad():
            own = model(images).argmax(1)
        return Saliency(model).attribute(images.clone().requires_grad_(), target=own, abs=False).detach()

    return gradient


def alignments(model: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Any]:
    """Of "signed" and "absolute" gradients the medians of alignment, null (what other images' maps score) and rank."""
    gradients, found = gradients_of(model)(images, images), {}  # of its own classes, whatever the second is
    for kind, maps in {"signed": gradients, "absolute": gradients.abs()}.items():
        chance = alignment_null(images, maps)
        for name in ("alignment", "null", "rank"):
            found[f"{kind}_{name}"] = median_interval(getattr(chance, name))[0]
    return found
