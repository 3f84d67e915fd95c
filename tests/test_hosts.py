"""Modules as users have them: compiled at several sizes, checkpointed, and Captum's own basic models."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint as ckpt
from captum.testing.helpers import basic_models
from torch import Tensor, nn

from captum_alignment import Alignment, LinearizedRobustness, adversarial_distance, linear_analysis
from captum_alignment.metrics import homogeneous_decomposition

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}


def _net() -> Any:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).double().eval()


def _terms(f: Any, x: Tensor) -> Tensor:
    found = homogeneous_decomposition(f, x)
    return torch.stack([found.score, found.input, found.bias + found.residual])


GRADIENTS: dict[str, Callable[[Any, Any], Tensor]] = {
    "linear_analysis": lambda f, x: linear_analysis(f, x).linearized_robustness,
    "Alignment": lambda f, x: Alignment(f)(x),
    "robustness": lambda f, x: LinearizedRobustness(f).robustness(x),
    "homogeneous_decomposition": _terms,
}


@pytest.mark.parametrize("function", [*GRADIENTS, "adversarial_distance"])
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_the_model_at_every_batch_size(backend: str, dynamic: bool | None, function: str):
    net = _net()
    compiled = torch.compile(net, backend=backend, dynamic=dynamic)
    compiled(torch.rand(2, 6, dtype=torch.float64)).sum().backward()  # as its training did
    run = {**GRADIENTS, "adversarial_distance": lambda f, x: adversarial_distance(f, x).distance}[function]
    for n in (4, 7, 3):
        x = torch.rand(n, 6, dtype=torch.float64)
        torch.testing.assert_close(run(compiled, x), run(net, x), **EXACT)
    compiled(torch.rand(5, 6, dtype=torch.float64)).sum().backward()
    torch.compiler.reset()


class Checkpointed(nn.Module):
    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net[2](ckpt.checkpoint(self.net[:2], x, use_reentrant=False))


def test_the_terms_of_a_checkpointed_model_are_those_of_the_model():
    net, x = _net(), torch.rand(4, 6, dtype=torch.float64)
    found, plain = homogeneous_decomposition(Checkpointed(net), x), homogeneous_decomposition(net, x)
    assert list(found.by_parameter) == ["net.0.bias", "net.2.bias"]
    for a, b in zip(found.by_parameter.values(), plain.by_parameter.values(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    torch.testing.assert_close(found.residual, torch.zeros(4, dtype=torch.float64), **EXACT)


def _literal(f: Any, x: tuple[Tensor, ...]) -> Tensor:
    """rho~ of every sample, from one gradient for each class."""
    leaves = tuple(t.clone().requires_grad_() for t in x)
    output = f(*leaves)
    scores = (
        output
        if output.ndim == 2 and output.shape[1] > 1
        else torch.stack([-output.reshape(-1), output.reshape(-1)], 1) / 2
    )
    rows = []
    for i in range(len(scores)):
        t = int(scores[i].argmax())
        ratios = []
        for j in range(scores.shape[1]):
            if j != t:
                gap = scores[i, t] - scores[i, j]
                parts = torch.autograd.grad(gap, leaves, retain_graph=True, allow_unused=True)
                size = torch.cat([p[i].flatten() for p in parts if p is not None]).norm()
                ratios.append(gap.detach() / size if gap else gap.detach())
        rows.append(torch.stack(ratios).min())
    return torch.stack(rows)


def _captums() -> list[str]:
    """Captum's basic models that can be made without arguments."""
    kinds = inspect.getmembers(basic_models, lambda kind: inspect.isclass(kind) and issubclass(kind, nn.Module))
    return [name for name, kind in kinds if kind.__module__ == basic_models.__name__]


#: What they are called with.
_SHAPES = [
    ((3, 3),),
    ((3, 3), (3, 3)),
    ((3, 1, 10, 10),),
    ((3, 1, 4, 4),),
    ((3, 2, 4, 4),),
    ((3, 2),),
    ((3, 1),),
    ((3, 3), (3, 3), (3, 3)),
]


#: Those that are classifiers, or may be read as such: never a sentence alone.
_ANSWERED = {
    "BasicModel6_MultiTensor", "BasicModelWithReusedLinear", "BasicModelWithReusedModules", "BasicModel_ConvNet",
    "BasicModel_ConvNet_One_Conv", "BasicModel_MaxPool_ReLU", "BasicModel_MultiLayer",
    "BasicModel_MultiLayer_TrueMultiInput", "PassThroughLayerOutput", "ReLUDeepLiftModel", "ReLULinearModel",
    "TanhDeepLiftModel",
}  # fmt: skip


@pytest.mark.parametrize("name", _captums())
@pytest.mark.parametrize("function", GRADIENTS)
def test_captums_basic_models_are_right_or_get_a_sentence(name: str, function: str):
    torch.manual_seed(0)
    try:
        net = getattr(basic_models, name)().eval()
    except TypeError:
        pytest.skip("needs arguments")
    answered, sentences = 0, []
    for shapes in _SHAPES:
        x = tuple(torch.rand(shape) + 0.5 for shape in shapes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of flat gradients, which many of them have
            try:
                found = GRADIENTS[function](net, x)
            except (ValueError, TypeError) as error:
                sentences.append(str(error))
                continue
        answered += 1
        if function in ("linear_analysis", "robustness"):
            expected = _literal(net, x)
            fine = expected.isfinite() & (expected != 0)
            torch.testing.assert_close(found[fine], expected[fine], rtol=1e-4, atol=1e-6)
        elif function == "homogeneous_decomposition":
            torch.testing.assert_close(found[0], found[1] + found[2], rtol=1e-4, atol=1e-5)
    assert all(sentence.startswith(("forward_func", "inputs", "target")) for sentence in sentences)
    assert answered or name not in _ANSWERED
