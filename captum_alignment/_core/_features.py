"""The features of a named layer, taken from a forward pass, and the maps that an explainer makes of them."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

T = TypeVar("T")

#: Layers that an error message names.
_NAMED = 12


def find_layer(model: Any, layer: str) -> nn.Module:
    """The module called ``layer`` in ``model``, else an error that names those there are."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected an nn.Module, whose layers have names")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: got a scripted or traced module, whose layers take no hooks; expected the eager one")
    modules = dict(model.named_modules())
    if layer not in modules:
        names = [name for name in modules if name]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ValueError(f"layer: got {layer!r}, expected one of {', '.join(names[:_NAMED])}{more}")
    return modules[layer]


def with_features(run: Callable[[], T], model: Any, layer: str) -> tuple[T, Tensor]:
    """What ``run()`` returns, and the feature map (N, C, h, w) that ``layer`` puts out in its one forward pass."""
    outputs: list[Any] = []

    thread = threading.get_ident()

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        if threading.get_ident() == thread:  # others may run the same layer meanwhile
            # What follows may write over it: an in-place ReLU.
            outputs.append(output.clone() if isinstance(output, Tensor) else output)

    handle = find_layer(model, layer).register_forward_hook(keep)
    try:
        result = run()
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f"layer: {layer!r} ran {len(outputs)} times in one forward pass, expected a layer that runs once"
        )
    features = outputs[0]
    if not isinstance(features, Tensor) or features.ndim != 4:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"layer: {layer!r} puts out {got}, expected a feature map (N, C, h, w)")
    return result, features


def explain(explainer: nn.Module, features: Tensor, image: torch.Size) -> Tensor:
    """The maps, shaped like a batch of images, that ``explainer`` makes of ``features``; bilinearly resized to them."""
    first = next(explainer.parameters(), features)
    maps = explainer(features.to(first.dtype))
    if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[:2] != image[:2]:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"explainer: returned {got} for images {tuple(image)}, expected maps {(*image[:2], 'h', 'w')}")
    return maps if maps.shape == image else F.interpolate(maps, image[2:], mode="bilinear", align_corners=False)
