"""Models by name: torchvision's, timm's, or what a user's own file makes; all take images in [0, 1]."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_alignment.study.load._adapters import Normalize
from captum_alignment.study.load._factories import call_factory, did_you_mean, parse_factory, reason, short_name
from captum_alignment.study.load._fitted import Size
from captum_alignment.study.load._weights import load_weights, split_key

_FORMS = "torchvision:NAME, timm:NAME, path/file.py:factory or package.module:factory"


@dataclass(frozen=True)
class LoadedModel:
    """A model and the data it expects.

    Attributes:
        module: in eval mode; takes images in [0, 1], its input normalisation is its first layer.
        name: the specification without folders; it says so if the model is untrained.
        mean, std: of the input normalisation, per channel; None without one.
        resize, crop: shorter side and centre crop in pixels with which the weights were evaluated; None if unknown.
            ``resize`` also has their ``interpolation``, and whether they ``squash`` images to squares.
    """

    module: nn.Module
    name: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Size | None = None
    crop: int | None = None


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    num_classes: int | None = None,
    device: torch.device | str = "cpu",
    seed: int | None = 0,
) -> LoadedModel:
    """The model that ``spec`` names, in eval mode on ``device``.

    Args:
        spec: ``torchvision:NAME`` or ``timm:NAME``; or ``path/file.py:factory`` or ``package.module:factory``, a
            module or what makes one, also called with literal arguments: ``zoo.py:load("mnist_kw")``.
        weights: a file of safetensors or of `torch.save`, FILE:KEY where it holds several networks; for torchvision
            also DEFAULT or an entry such as IMAGENET1K_V1, for timm DEFAULT. Entries bring their mean, std, resize and
            crop, files do not. None leaves the model as its factory makes it; torchvision's and timm's are then
            untrained, the same every time.
        mean, std: input normalisation per channel; they override those of the weights.
        num_classes: for torchvision and timm; None is the architecture's own.
        seed: of parameters that no weights replace: every process and every resumed run makes the same ones. None goes
            on with torch's generator.

    Raises:
        ValueError, TypeError: a specification, model or weights that do not exist or do not fit, or a factory that
            raised; the message has the option as the command line calls it, what came and what was expected.
        FileNotFoundError: no such file of a factory or of weights.
        ModuleNotFoundError: no such module, or timm is not installed.
        ConnectionError: pretrained weights that could not be downloaded.
    """
    kind, colon, name = spec.partition(":")
    make = {"torchvision": _torchvision, "timm": _timm}.get(kind.strip().lower())
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if make is not None:
            loaded, file = make(name.strip(), weights, num_classes)
        else:
            if not colon:
                raise ValueError(f"--model: got {spec!r}, expected {_FORMS}{_perhaps_torchvision(spec)}")
            loaded, file = _from_factory(spec, num_classes), weights
    module = loaded.module.to(device).eval()
    if file is not None:
        load_weights(module, file)
        if (key := split_key(file)[1]) is not None:
            loaded = replace(loaded, name=f"{loaded.name} ({key})")
    mean, std = _override("mean", mean, loaded.mean), _override("std", std, loaded.std)
    if (mean is None) != (std is None):
        raise ValueError(f"--{'mean' if mean is None else 'std'}: missing, expected --mean and --std together")
    if mean is not None and std is not None:
        module = nn.Sequential(Normalize(mean, std), module).to(device).eval()
    return replace(loaded, module=module, mean=mean, std=std)


def _from_factory(spec: str, num_classes: int | None) -> LoadedModel:
    factory = parse_factory(spec, "--model")
    if num_classes is not None:
        raise ValueError(
            f"--num-classes: got {num_classes} for a factory, expected an argument of its own as in "
            f"{short_name(f'{factory.source}:{factory.name}')}(num_classes={num_classes})"
        )
    module = call_factory(factory, "--model", ready=nn.Module)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"--model: {factory.name}() of {factory.source} returned an object of type {type(module).__name__}, "
            "expected a torch.nn.Module"
        )
    return LoadedModel(module, short_name(spec))


def _torchvision(
    name: str, weights: str | Path | None, num_classes: int | None
) -> tuple[LoadedModel, str | Path | None]:
    from torchvision import models  # noqa: PLC0415 - needed for these models only

    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known) or "; expected a name such as resnet50"
        raise ValueError(f"--model: torchvision has no image classifier {name!r}{hint}")
    enum: Any = models.get_model_weights(name)
    entry = enum.__members__.get(str(weights))
    if weights is not None and entry is None and not split_key(weights)[0].is_file():
        entries = " or ".join(enum.__members__)  # with DEFAULT among them
        raise ValueError(f"--weights: got {str(weights)!r}, expected a file or, for {name}, {entries}")
    label = f"torchvision:{name}"
    options = {} if num_classes is None else {"num_classes": num_classes}
    module = _made(lambda: models.get_model(name, weights=entry, **options), label, entry is not None)
    if entry is None:
        return LoadedModel(module, _untrained(label, weights)), weights
    transform: Any = entry.transforms()
    mean, std = tuple(transform.mean), tuple(transform.std)
    resize = Size(transform.resize_size[0], transform.interpolation.value)
    return LoadedModel(module, label, mean, std, resize, transform.crop_size[0]), None


def _timm(name: str, weights: str | Path | None, num_classes: int | None) -> tuple[LoadedModel, str | Path | None]:
    try:
        import timm  # noqa: PLC0415 - needed for these models only  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        # Without a name, which would stand for what the extra `study` brings.
        raise ModuleNotFoundError("--model: timm is not installed: pip install timm") from error
    if ":" not in name and not timm.is_model(name):
        raise ValueError(f"--model: timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    label, pretrained = f"timm:{name}", weights == "DEFAULT"
    options = {} if num_classes is None else {"num_classes": num_classes}
    module = _made(lambda: timm.create_model(name, pretrained=pretrained, **options), label, pretrained)
    if not pretrained:
        return LoadedModel(module, _untrained(label, weights)), weights
    config: dict[str, Any] = timm.data.resolve_model_data_config(module)
    loaded = LoadedModel(module, label, tuple(config["mean"]), tuple(config["std"]))
    *_, height, crop = map(int, config["input_size"])
    mode = config.get("crop_mode", "center")
    if mode not in ("center", "squash") or height != crop:
        warnings.warn(
            f"--weights: {label} was evaluated on images of {height} x {crop} pixels in timm's mode {mode!r}, which is "
            "not made here; bring the images to this size, or give --resize and --crop",
            UserWarning,
            stacklevel=2,
        )
        return loaded, None
    resize = Size(math.floor(crop / config["crop_pct"]), config["interpolation"], squash=mode == "squash")
    return replace(loaded, resize=resize, crop=crop), None


def _made(make: Callable[[], nn.Module], label: str, pretrained: bool) -> nn.Module:
    try:
        return make()
    except Exception as error:
        if not pretrained:
            raise ValueError(f"--model: {label} raised {reason(error)}") from error
        if isinstance(error, OSError):
            raise ConnectionError(
                f"--weights: the pretrained weights of {label} could not be downloaded ({reason(error)}), expected a "
                "network connection, or a file that was downloaded elsewhere"
            ) from error
        raise ValueError(f"--weights: the pretrained weights of {label} do not load ({reason(error)})") from error


def _untrained(label: str, weights: str | Path | None) -> str:
    return f"{label} (untrained)" if weights is None else label


def _perhaps_torchvision(spec: str) -> str:
    from torchvision import models  # noqa: PLC0415 - needed for these models only

    return did_you_mean(spec, models.list_models(module=models), prefix="torchvision:")


def _override(name: str, given: Sequence[float] | None, own: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if given is None:
        return own
    if isinstance(given, (str, int, float)):
        raise TypeError(f"--{name}: got {given!r}, expected one number per channel, as a sequence")
    return tuple(float(value) for value in given)
