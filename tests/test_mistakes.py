"""Mistakes of a user who comes from Captum: each ends in one sentence that names the argument."""

import re
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_alignment import (
    Alignment,
    LinearizedRobustness,
    Shared,
    adversarial_distance,
    alignment,
    linear_analysis,
)
from captum_alignment.attr import FullGradient
from captum_alignment.metrics import (
    deletion_curve,
    homogeneous_decomposition,
    linearity_profile,
    randomization_check,
    rank_correlation,
    remove_features,
)

N, D, K = 3, 4, 3
X = torch.rand(N, D, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
IMAGES = torch.rand(N, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def _net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K)).eval()


def _conv() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, K)).eval()


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    return _net()(x) * scale


def _returning(wrap: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    net = _net()
    return lambda x: wrap(net(x))


def _dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 50), nn.Dropout(0.5), nn.Linear(50, K))


def _normalising() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.Linear(8, K))


def _maps(model: Any, x: Any, target: Any) -> Any:
    return LinearizedRobustness(model).attribute(x, target)


def _curve(**options: Any) -> Any:
    return deletion_curve(_net(), X, **{"attributions": X, "baselines": 0, "per": "value", **options})


def _removed(**options: Any) -> Any:
    return remove_features(
        **{"inputs": X, "attributions": X, "fraction": 0.5, "baselines": 0, "per": "value", **options}
    )


def _checked(**options: Any) -> Any:
    return randomization_check(**{"model": _net(), "attribute": _maps, "inputs": X, **options})


#: What takes a model and inputs, a target and additional arguments, and more by name.
CALLS: dict[str, Callable[..., Any]] = {
    "linear_analysis": linear_analysis,
    "Alignment": lambda f, *args, **options: Alignment(f, **_own(options))(*args, **options),
    "LinearizedRobustness": lambda f, *args, **options: LinearizedRobustness(f, **_own(options)).attribute(
        *args, **options
    ),
    "robustness": lambda f, *args, **options: LinearizedRobustness(f, **_own(options)).robustness(*args, **options),
    "homogeneous_decomposition": homogeneous_decomposition,
    "linearity_profile": linearity_profile,
    "deletion_curve": lambda f, x, *args, **options: deletion_curve(
        f, x, X, *args, baselines=0, per="value", **options
    ),
    "adversarial_distance": lambda f, *args, **options: adversarial_distance(f, *args, attacks=["deepfool"], **options),
}


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options.pop(name) for name in ("norm", "internal_batch_size") if name in options}


Named = namedtuple("Named", ["aux", "logits"])

#: Mistakes that any of `CALLS` can be given: the arguments, and what the sentence says.
ANYWHERE: dict[str, tuple[Callable[[], tuple[tuple[Any, ...], dict[str, Any]]], str]] = {
    "list of inputs": (lambda: ((_net(), [X, X]), {}), "inputs: got list"),
    "numpy inputs": (lambda: ((_net(), X.numpy()), {}), "inputs: got ndarray"),
    "no inputs": (lambda: ((_net(), None), {}), "inputs: got NoneType"),
    "empty tuple": (lambda: ((_net(), ()), {}), "inputs: .*empty tuple"),
    "string": (lambda: ((_net(), "cat.png"), {}), "inputs: got str"),
    "0-d": (lambda: ((_net(), torch.tensor(1.0)), {}), "inputs: .*0-d"),
    "empty batch": (lambda: ((_net(), X[:0]), {}), "inputs: .*empty batch"),
    "complex": (lambda: ((_net(), X.to(torch.complex64)), {}), "inputs: .*complex64"),
    "nan inputs": (lambda: ((_net(), X * torch.nan), {}), "inputs: NaN"),
    "batch sizes": (lambda: ((lambda x, y: x, (X, X[:2])), {}), "inputs: .*batch sizes"),
    "no batch": (lambda: ((nn.Linear(D, K), X[0]), {}), "inputs|forward_func"),
    "float64": (lambda: ((_net(), X.double()), {}), "inputs: .*torch.float64.*torch.float32"),
    "float32": (lambda: ((_net().double(), X), {}), "inputs: .*torch.float32.*torch.float64"),
    "half": (lambda: ((_net(), X.half()), {}), "inputs: .*torch.float16.*torch.float32"),
    "two inputs": (lambda: ((_net(), (X, X)), {}), "inputs|forward_func|attributions"),
    "wrong width": (lambda: ((_net(), torch.rand(N, D + 1)), {}), "inputs|forward_func|attributions"),
    "class": (lambda: ((Net, X), {}), "forward_func: .*class"),
    "not callable": (lambda: ((_net().state_dict(), X), {}), "forward_func: .*OrderedDict"),
    "name of a model": (lambda: (("resnet18", X), {}), "forward_func: .*str"),
    "no model": (lambda: ((None, X), {}), "forward_func: .*None"),
    "dropout": (lambda: ((_dropping(), X), {}), r"model\.eval\(\)|eval"),
    "batch norm": (lambda: ((_normalising(), X), {}), r"model\.eval\(\)|eval"),
    "dict": (lambda: ((_returning(lambda s: {"logits": s}), X), {}), r"forward_func: .*\['logits'\]"),
    "tuple": (lambda: ((_returning(lambda s: (1, s)), X), {}), r"forward_func: .*\[1\]"),
    "named tuple": (lambda: ((_returning(lambda s: Named(s, s)), X), {}), r"forward_func: .*\.logits"),
    "model output": (lambda: ((_returning(lambda s: SimpleNamespace(logits=s)), X), {}), r"forward_func: .*\.logits"),
    "none returned": (lambda: ((_returning(lambda s: None), X), {}), "forward_func: .*NoneType"),
    "array returned": (lambda: ((_returning(lambda s: s.detach().numpy()), X), {}), "forward_func: .*ndarray"),
    "labels": (lambda: ((_returning(lambda s: s.argmax(1)), X), {}), "forward_func: .*labels"),
    "loss": (lambda: ((_returning(lambda s: s.sum()), X), {}), "forward_func: "),
    "segmentation": (lambda: ((_returning(lambda s: s[:, :, None]), X), {}), "forward_func: .*shape"),
    "nan scores": (lambda: ((_returning(lambda s: s * torch.nan), X), {}), "forward_func: .*NaN"),
    "target out of range": (lambda: ((_net(), X, K), {}), f"target: got class {K}"),
    "negative target": (lambda: ((_net(), X, -1), {}), "target: got class -1"),
    "bool target": (lambda: ((_net(), X, True), {}), "target: .*bool"),
    "bool targets": (lambda: ((_net(), X, torch.ones(N, dtype=torch.bool)), {}), "target: .*bool"),
    "float target": (lambda: ((_net(), X, 1.0), {}), "target: "),
    "float targets": (lambda: ((_net(), X, torch.rand(N)), {}), "target: .*float32"),
    "name as target": (lambda: ((_net(), X, "cat"), {}), "target: got str"),
    "names as target": (lambda: ((_net(), X, ["cat"] * N), {}), "target: .*integers"),
    "too few targets": (lambda: ((_net(), X, [0, 1]), {}), "target: got shape"),
    "too many targets": (lambda: ((_net(), X, torch.zeros(N + 1).long()), {}), "target: got shape"),
    "empty target": (lambda: ((_net(), X, []), {}), "target: got shape"),
    "one-hot": (lambda: ((_net(), X, torch.eye(N).long()), {}), "target: got shape"),
    "multi-hot": (lambda: ((_net(), X, torch.eye(N)), {}), "target: got a tensor of torch.float32"),
    "Captum's target of more dimensions": (lambda: ((_net(), X, (0, 1)), {}), "target: got tuple"),
    "list of tuples": (lambda: ((_net(), X, [(0, 1)] * N), {}), "target: "),
    "list of arguments": (
        lambda: ((_scaled, X, None, [torch.ones(N, 1)]), {}),
        "additional_forward_args: got a list|additional_forward_args: .*list",
    ),
    "short argument": (lambda: ((_scaled, X, None, torch.ones(2, 1)), {}), "additional_forward_args: .*Shared"),
    "nested argument": (lambda: ((_scaled, X, None, ((torch.ones(N, 1),),)), {}), "additional_forward_args: .*Shared"),
    "one argument too few": (lambda: ((_scaled, X), {}), "forward_func|additional_forward_args"),
    "one argument too many": (
        lambda: ((_scaled, X, None, (torch.ones(N, 1), Shared(1))), {}),
        "forward_func|additional_forward_args",
    ),
}

_NORM = {name: f for name, f in CALLS.items() if name not in ("homogeneous_decomposition", "deletion_curve")}
_SIZE = {
    name: f
    for name, f in CALLS.items()
    if name
    in ("linear_analysis", "LinearizedRobustness", "linearity_profile", "deletion_curve", "adversarial_distance")
}

#: Mistakes of one function each.
HERE: dict[str, tuple[Callable[[], Any], str]] = {
    **{f"norm of {name}": (lambda f=f: f(_net(), X, norm="l2"), "norm: got 'l2'") for name, f in _NORM.items()},
    **{
        f"size of {name}": (lambda f=f: f(_net(), X, internal_batch_size=0), "internal_batch_size: got 0")
        for name, f in _SIZE.items()
    },
    **{
        f"half a sample of {name}": (lambda f=f: f(_net(), X, internal_batch_size=2.5), "internal_batch_size: got 2.5")
        for name, f in _SIZE.items()
    },
    "bounds swapped": (lambda: adversarial_distance(_net(), X, bounds=(1, 0)), "bounds"),
    "bounds too small": (lambda: adversarial_distance(_net(), X, bounds=(0, 0.01)), "bounds|inputs"),
    "one bound": (lambda: adversarial_distance(_net(), X, bounds=1), "bounds"),  # pyright: ignore
    "three bounds": (lambda: adversarial_distance(_net(), X, bounds=(0, 1, 2)), "bounds"),  # pyright: ignore
    "unknown attack": (lambda: adversarial_distance(_net(), X, attacks="fgsm2"), "attacks"),
    "attack that is a number": (lambda: adversarial_distance(_net(), X, attacks=3), "attacks"),
    "no attacks": (lambda: adversarial_distance(_net(), X, attacks=[]), "attacks"),
    "attack class": (lambda: adversarial_distance(_net(), X, attacks=nn.Linear), "attacks"),
    "integer inputs": (lambda: linear_analysis(_net(), (X * 255).to(torch.uint8)), "inputs: .*uint8"),
    "feature_mask of floats": (lambda: adversarial_distance(_net(), X, feature_mask=X), "feature_mask"),
    "feature_mask of another shape": (
        lambda: adversarial_distance(_net(), X, feature_mask=torch.ones(2, 2, dtype=torch.bool)),
        "feature_mask",
    ),
    "candidates": (lambda: linear_analysis(_net(), X, candidates=0), "candidates"),
    "candidates of a map": (lambda: LinearizedRobustness(_net(), candidates=-1).attribute(X), "candidates"),
    "a seed as generator": (lambda: linear_analysis(_net(), X, generator=0), "generator: got int"),  # pyright: ignore[reportArgumentType]
    "a map's": (lambda: LinearizedRobustness(_net(), generator=7), "generator: got"),  # pyright: ignore[reportArgumentType]
    "steps": (lambda: linearity_profile(_net(), X, steps=0), "steps"),
    "adversarials": (lambda: linearity_profile(_net(), X, adversarials=X[:2]), "adversarials"),
    "analysis": (lambda: linearity_profile(_net(), X, analysis=X), "analysis"),  # pyright: ignore
    "attribution of the rest": (lambda: alignment(X, X[:, :2]), "attributions"),
    "numpy attributions": (lambda: alignment(X, X.numpy()), "attributions: got ndarray"),  # pyright: ignore
    "attributions in a list": (lambda: alignment(X, [X]), "attributions: got list"),  # pyright: ignore
    "no attributions": (lambda: alignment(X, None), "attributions: got NoneType"),  # pyright: ignore
    "attributions and delta": (lambda: alignment(X, (X, X)), "attributions"),
    "baseline in words": (lambda: _removed(baselines="mean"), "baselines: got 'mean'"),
    "no baseline": (lambda: _removed(baselines=None), "baselines: got None"),
    "two baselines": (lambda: _removed(baseline=0), "baselines: got both"),
    "curve's baseline in words": (lambda: deletion_curve(_net(), X, X, baselines="mean"), "baselines: got 'mean'"),
    "an attribution's instance": (lambda: _checked(attribute=Saliency(_net())), "attribute: got Saliency"),
    "attribute of one argument": (lambda: _checked(attribute=lambda x: x), "attribute: got one that cannot"),
    "correlation of other shapes": (lambda: rank_correlation(X, X[:, :2]), "others"),
    "correlation of arrays": (lambda: rank_correlation(X, X.numpy()), "others"),  # pyright: ignore
    "curve of arrays": (lambda: _curve(attributions=X.numpy()), "attributions: got ndarray"),
    "curve of other shapes": (lambda: _curve(attributions=X[:, :2]), "attributions"),
    "curve of percents": (lambda: _curve(fractions=(10, 20)), "fraction"),
    "no fractions": (lambda: _curve(fractions=()), "fractions"),
    "curve of what": (lambda: _curve(of="logit"), "of: got 'logit'"),
    "curve per what": (lambda: _curve(per="patch"), "per: got 'patch'"),
    "fraction": (lambda: _removed(fraction=50), "fraction: got 50"),
    "fraction in words": (lambda: _removed(fraction="half"), "fraction: got 'half'"),
    "baselines of another shape": (lambda: _removed(baselines=torch.zeros(2, 2)), "baselines"),
    "a function as the model": (lambda: _checked(model=lambda x: x), "model"),
    "randomised class": (lambda: _checked(model=Net), "model"),
    "unknown layers": (lambda: _checked(layers=["fc"]), "layer.*fc"),
    "mode": (lambda: _checked(mode="cascade"), "mode: got 'cascade'"),
    "rival": (lambda: homogeneous_decomposition(_net(), X, rival=1), "rival"),
    "rival that is the target": (lambda: homogeneous_decomposition(_net(), X, 1, of="margin", rival=1), "rival"),
    "decomposed what": (lambda: homogeneous_decomposition(_net(), X, of="gap"), "of: got 'gap'"),  # pyright: ignore
    "FullGradient of a table": (lambda: FullGradient(_net()).attribute(X), "inputs: .*images"),
    "FullGradient of doubles": (
        lambda: FullGradient(_conv()).attribute(IMAGES.double()),
        "inputs: .*torch.float64.*torch.float32",
    ),
    "FullGradient of a list": (lambda: FullGradient(_conv()).attribute([IMAGES]), "inputs: got list"),  # pyright: ignore[reportArgumentType]
    "FullGradient of one image": (lambda: FullGradient(_conv()).attribute(IMAGES[0]), "inputs: .*images"),
    "FullGradient target": (lambda: FullGradient(_conv()).attribute(IMAGES, K), "target: got class"),
}


#: How a sentence starts.
_ARGUMENT = (
    "(forward_func|model|inputs|target|additional_forward_args|attributions|norm|internal_batch_size|bounds|attacks?"
    "|feature_mask|candidates|steps|adversarials|analysis|others|fractions?|of|per|baselines|attribute|layers?|mode|rival"
    "|generator)"
    r"\b"
)


def _is_a_sentence(call: Callable[[], Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert re.match(_ARGUMENT, message), message
    assert re.search(words, message), message
    assert "\n" not in message, message


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("mistake", ANYWHERE)
def test_a_mistake_in_what_all_take_is_told(mistake: str, function: str):
    make, words = ANYWHERE[mistake]
    args, options = make()
    _is_a_sentence(lambda: CALLS[function](*args, **options), words)


@pytest.mark.parametrize("mistake", HERE)
def test_a_mistake_in_what_one_takes_is_told(mistake: str):
    _is_a_sentence(*HERE[mistake])
