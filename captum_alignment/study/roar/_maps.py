"""The attributions that a ROAR study compares: Captum's, baselines that need no network, and a user's own."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor
from torch.utils.data import TensorDataset

from captum_alignment.attr import LinearizedRobustness
from captum_alignment.study.load import Split, did_you_mean
from captum_alignment.training import SaliencyTargets, edge_maps, saliency_targets

#: Maps of images (N, C, H, W) and the classes (N,) that the explained model predicts.
MapFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

RANDOM = "random"
_BATCH = 64
#: Noisy copies, and their standard deviation relative to the range of the images (Noack et al. 2019).
_COPIES, _NOISE = 50, 0.15
_STEPS = 32


def random_maps(images: Tensor, _targets: Tensor) -> Tensor:
    return torch.rand_like(images)


def _smoothgrad(model: Any, bounds: tuple[float, float]) -> MapFunction:
    tunnel, deviation = NoiseTunnel(Saliency(model)), _NOISE * (bounds[1] - bounds[0])
    options: dict[str, Any] = {"abs": False, "nt_samples": _COPIES, "nt_samples_batch_size": 5, "stdevs": deviation}
    return partial(_attribute, tunnel, **options)


#: Made from the model and the bounds of the images. Gradients are signed: whether the sign counts is said elsewhere.
BUILT_IN: dict[str, Callable[[Any, tuple[float, float]], MapFunction]] = {
    RANDOM: lambda _model, _bounds: random_maps,
    "sobel": lambda _model, _bounds: lambda images, _targets: edge_maps(images),
    "saliency": lambda model, _: partial(_attribute, Saliency(model), abs=False),
    "smoothgrad": _smoothgrad,
    "input-x-gradient": lambda model, _: partial(_attribute, InputXGradient(model)),
    "integrated-gradients": lambda model, _: partial(
        _attribute, IntegratedGradients(model), n_steps=_STEPS, internal_batch_size=4 * _BATCH
    ),
    "binarized-saliency": lambda model, _: partial(_attribute, LinearizedRobustness(model)),
}


def _attribute(attribution: Any, images: Tensor, targets: Tensor, **options: Any) -> Tensor:
    return attribution.attribute(images, target=targets, **options)


def resolve_methods(
    methods: Sequence[str] | Mapping[str, Any], model: Any, bounds: tuple[float, float]
) -> dict[str, MapFunction]:
    """Each method as a function of images and predictions.

    Raises:
        ValueError: an unknown name; the message has those that are close. TypeError: neither name, nor function, nor
            Captum attribution.
    """
    if isinstance(methods, str):
        raise TypeError(f"methods: got the text {methods!r}, expected a sequence of names, or a mapping")
    given = methods if isinstance(methods, Mapping) else dict(zip(methods, methods, strict=True))
    return {name: _resolve(name, method, model, bounds) for name, method in given.items()}


def _resolve(name: str, method: Any, model: Any, bounds: tuple[float, float]) -> Any:
    if isinstance(method, str):
        if method not in BUILT_IN:
            known = ", ".join(BUILT_IN)
            raise ValueError(f"methods: got {method!r}, expected some of {known}{did_you_mean(method, BUILT_IN)}")
        return BUILT_IN[method](model, bounds)
    if hasattr(method, "attribute"):
        return partial(_attribute, method)
    if callable(method):
        return method
    raise TypeError(
        f"methods: {name!r} is of type {type(method).__name__}, expected a name, a Captum attribution, or a "
        "function of images and targets"
    )


def keep_maps(model: Any, name: str, method: MapFunction, split: Split, folder: Path, *, per: str, bar: Any) -> None:
    """The maps of every image of ``split`` in ``folder``, as far as they are not there; see `saliency_targets`.

    ``bar`` moves on by the images of ``split``.

    Raises:
        ValueError: maps that are not shaped like the images, or not finite.
    """

    def maps(images: Tensor, _labels: Tensor) -> Tensor:
        # The label would tell the network that is retrained what the answer is, by the place of what is removed.
        with torch.no_grad():
            targets = model(images.clone()).argmax(1)
        found = method(images, targets)
        bar.update(len(images))
        one_channel = (len(images), 1, *images.shape[2:])
        return found.expand_as(images) if per == "pixel" and found.shape == one_channel else found

    maps.__qualname__ = name
    before = bar.n
    try:
        saliency_targets(model, _pairs(split), folder, method=maps, threshold=None, batch_size=_BATCH)
    except ValueError as error:
        raise ValueError(f"methods: {name}: {error}") from error
    bar.update(before + len(split) - bar.n)  # those that were there


def read_maps(split: Split, folder: Path, start: int, stop: int) -> Tensor:
    """The maps that `keep_maps` has put there, of the images from ``start`` to before ``stop``."""
    stored = SaliencyTargets(_pairs(split), folder, threshold=None)
    return torch.stack([stored[index][2] for index in range(start, min(stop, len(split)))])


def _pairs(split: Split) -> TensorDataset:
    return TensorDataset(split.images, split.labels)
