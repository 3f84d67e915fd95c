"""Attributions by name: Captum's, baselines that need no network, and a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias

from captum_alignment._optional import WhenUsed
from captum_alignment.study.load._factories import call_factory, did_you_mean, parse_factory

# The command line lists the names before anything that is slow is needed.
if TYPE_CHECKING:
    import torch
    from captum import attr as captum
    from torch import Tensor

    from captum_alignment import attr, training
else:
    torch, captum = WhenUsed("torch"), WhenUsed("captum.attr")
    attr, training = WhenUsed("captum_alignment.attr"), WhenUsed("captum_alignment.training")

#: Maps of images (N, C, H, W) and the classes (N,) that the explained model predicts.
MapFunction: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"

RANDOM = "random"
#: Parameters of a function that knows its model.
_IMAGES_AND_TARGETS = 2
#: Noisy copies, and their standard deviation relative to the range of the images (Noack et al. 2019).
_COPIES, _NOISE = 50, 0.15
_STEPS = 32
#: Images that integrated gradients puts through the model at once.
_ROWS = 256


def random_maps(images: Tensor, _targets: Tensor) -> Tensor:
    return torch.rand_like(images)


def _smoothgrad(model: Any, bounds: tuple[float, float]) -> MapFunction:
    tunnel, deviation = captum.NoiseTunnel(captum.Saliency(model)), _NOISE * (bounds[1] - bounds[0])
    options: dict[str, Any] = {"abs": False, "nt_samples": _COPIES, "nt_samples_batch_size": 5, "stdevs": deviation}
    return partial(_attribute, tunnel, **options)


def _gradcam(model: Any) -> MapFunction:
    """Grad-CAM (Selvaraju et al. 2017) of the last convolution, interpolated to the images."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    layers = [layer for layer in modules if isinstance(layer, torch.nn.Conv2d)]
    if not layers:
        raise ValueError("attributions: gradcam needs a model with a convolution, torch.nn.Conv2d")

    def maps(images: Tensor, targets: Tensor) -> Tensor:
        found = captum.LayerGradCam(model, layers[-1]).attribute(images, target=targets, relu_attributions=True)
        assert isinstance(found, torch.Tensor)
        return captum.LayerAttribution.interpolate(found, tuple(images.shape[2:]), "bilinear").expand_as(images)

    return maps


#: Made from the model and the bounds of the images. Gradients are signed: whether the sign counts is said elsewhere.
BUILT_IN: dict[str, Callable[[Any, tuple[float, float]], MapFunction]] = {
    RANDOM: lambda _model, _bounds: random_maps,
    "sobel": lambda _model, _bounds: lambda images, _targets: training.edge_maps(images),
    "saliency": lambda model, _: partial(_attribute, captum.Saliency(model), abs=False),
    "smoothgrad": _smoothgrad,
    "input-x-gradient": lambda model, _: partial(_attribute, captum.InputXGradient(model)),
    "integrated-gradients": lambda model, _: partial(
        _attribute, captum.IntegratedGradients(model), n_steps=_STEPS, internal_batch_size=_ROWS
    ),
    "gradcam": lambda model, _: _gradcam(model),
    "binarized-saliency": lambda model, _: partial(_attribute, attr.LinearizedRobustness(model)),
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


@dataclass(frozen=True)
class NamedAttribution:
    """An attribution by name: ``function(model, images, targets)`` makes the maps; ``own`` is whether of that model.

    An attribution that was made for one model cannot show those of another, which the randomisation check asks for.
    """

    name: str
    function: Callable[[Any, Tensor, Any], Any]
    own: bool = True


def resolve_attributions(given: Any, model: Any, bounds: tuple[float, float]) -> list[NamedAttribution]:
    """The attributions that a user names: built-in ones, ``FILE.py:NAME``, ``captum.attr:DeepLift``, or a mapping.

    A mapping has names, Captum classes, Captum attributions of the model, or functions of (model, images, targets) or
    of (images, targets).

    Raises:
        ValueError, TypeError, FileNotFoundError, ModuleNotFoundError: a name that is not known, or what is none.
    """
    if given is None:
        return []
    if not isinstance(given, Mapping):
        given = {_short(one): one for one in ([given] if isinstance(given, str) else given)}
    return [_named(str(name), attribution, model, bounds) for name, attribution in given.items()]


def _short(spec: Any) -> str:
    return spec.rpartition(":")[2] if isinstance(spec, str) else getattr(spec, "__name__", type(spec).__name__)


def _named(name: str, method: Any, model: Any, bounds: tuple[float, float]) -> NamedAttribution:
    if isinstance(method, str) and method in BUILT_IN:
        make = BUILT_IN[method]
        make(model, bounds)  # complains before anything is measured
        return NamedAttribution(name, lambda model, images, targets: make(model, bounds)(images, targets))
    if isinstance(method, str):
        if ":" not in method:
            known = ", ".join(BUILT_IN)
            raise ValueError(
                f"attributions: got {method!r}, expected some of {known}, FILE.py:NAME or captum.attr:NAME"
                f"{did_you_mean(method, BUILT_IN)}"
            )
        method = call_factory(parse_factory(method, "attributions"), "attributions", ready=object)
    if isinstance(method, type) and hasattr(method, "attribute"):
        return NamedAttribution(name, lambda model, images, targets: method(model).attribute(images, target=targets))
    if hasattr(method, "attribute"):
        return NamedAttribution(name, lambda _, images, targets: method.attribute(images, target=targets), own=False)
    if not callable(method):
        raise TypeError(
            f"attributions: {name!r} is of type {type(method).__name__}, expected an attribution or a function"
        )
    if len(signature(method).parameters) == _IMAGES_AND_TARGETS:
        return NamedAttribution(name, lambda _, images, targets: method(images, targets), own=False)
    return NamedAttribution(name, method)
