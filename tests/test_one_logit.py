"""One logit Psi for each sample, (N,) or (N, 1): what is reported of it, against gradients of the binary loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_alignment import Alignment, LinearizedRobustness, adversarial_distance, linear_analysis
from captum_alignment.attr import FullGradient
from captum_alignment.metrics import (
    deletion_curve,
    homogeneous_decomposition,
    linearity_profile,
    randomization_check,
)
from captum_alignment.study import evaluate, report

N, D = 6, 5
SHAPES = pytest.mark.parametrize("flat", [True, False], ids=["(N,)", "(N, 1)"])
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}


class Psi(nn.Module):
    def __init__(self, net: nn.Module, *, flat: bool) -> None:
        super().__init__()
        self.net, self.flat = net.double().eval(), flat

    def forward(self, x: Tensor) -> Tensor:
        logit = self.net(x)
        return logit.squeeze(1) if self.flat else logit


def _net(flat: bool) -> Psi:
    return Psi(nn.Sequential(nn.Flatten(), nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, 1)), flat=flat)


def _linear(flat: bool) -> Psi:
    return Psi(nn.Sequential(nn.Flatten(), nn.Linear(D, 1)), flat=flat)


def _inputs() -> Tensor:
    return torch.rand(N, D, dtype=torch.float64) * 0.2 + 0.4


@torch.no_grad()
def _centre(net: Psi, x: Tensor) -> None:
    """The boundary between the samples."""
    net.net[-1].bias -= net(x).median() + 1e-3  # pyright: ignore


def _of_the_loss(net: Psi, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The margin of ``target`` (N,) and its gradient (N, D), from the binary cross-entropy l alone.

    l = softplus(-m) of the margin m, so m = -log(e^l - 1), and ∇l = -sigmoid(-m) ∇m.
    """
    margins, gradients = [], []
    for sample, t in zip(x, target, strict=True):
        leaf = sample[None].clone().requires_grad_()
        loss = F.binary_cross_entropy_with_logits(net(leaf).reshape(1), t[None].double())
        (gradient,) = torch.autograd.grad(loss, leaf)
        margin = -loss.expm1().log()
        margins.append(margin.detach())
        gradients.append((gradient / -torch.sigmoid(-margin)).detach()[0])
    return torch.stack(margins), torch.stack(gradients)


#: Ways to say which class is meant, from the labels (N,) 0 and 1.
TARGETS: dict[str, Callable[[Tensor], Any]] = {
    "integers": lambda t: t,
    "floats": lambda t: t.double(),
    "floats (N, 1)": lambda t: t.double().unsqueeze(1),
    "list": lambda t: t.tolist(),
    "array": lambda t: t.numpy(),
}


@SHAPES
@pytest.mark.parametrize("norm", [1, 2, torch.inf])
@pytest.mark.parametrize("way", TARGETS)
def test_linear_quantities_are_those_of_the_binary_loss(way: str, norm: float, flat: bool):
    net, x = _net(flat), _inputs()
    t = torch.arange(N) % 2
    margin, gradient = _of_the_loss(net, x, t)
    dual = {1: torch.inf, 2: 2, torch.inf: 1}[norm]
    size = torch.linalg.vector_norm(gradient, dual, dim=1)
    alpha = (x * gradient).sum(1).abs() / size
    target = TARGETS[way](t)
    found = linear_analysis(net, x, target, norm=norm)
    torch.testing.assert_close(found.gap, margin, **EXACT)
    torch.testing.assert_close(found.binarized_gradient, gradient, **EXACT)
    torch.testing.assert_close(found.linearized_robustness, margin / size, **EXACT)
    torch.testing.assert_close(found.alignment, alpha, **EXACT)
    torch.testing.assert_close(found.binarized_alignment, alpha, **EXACT)
    torch.testing.assert_close(found.target, t)
    torch.testing.assert_close(found.rival, 1 - t)
    torch.testing.assert_close(Alignment(net, norm=norm)(x, target), alpha, **EXACT)
    rho = LinearizedRobustness(net, norm=norm).robustness(x, target)
    torch.testing.assert_close(rho, margin / size, **EXACT)


@SHAPES
def test_the_predicted_class_is_1_where_the_logit_is_positive(flat: bool):
    net, x = _net(flat), torch.randn(50, D, dtype=torch.float64)
    _centre(net, x)
    found = linear_analysis(net, x)
    assert found.target.unique().tolist() == [0, 1]
    assert torch.equal(found.target, (net(x).flatten() > 0).long())
    assert (found.linearized_robustness >= 0).all()


@SHAPES
@pytest.mark.parametrize("norm", [2, torch.inf])
def test_the_distance_of_a_linear_logit_is_exact(norm: float, flat: bool):
    net, x = _linear(flat), _inputs()
    _centre(net, x)
    weight = net.net[1].weight.detach()[0]  # pyright: ignore
    psi = net(x).detach().flatten()
    dual = {2: 2, torch.inf: 1}[norm]
    exact = psi.abs() / torch.linalg.vector_norm(weight, dual)
    labels = (psi > 0).long()
    assert labels.unique().tolist() == [0, 1]
    for target in (None, labels, labels.double()):
        found = adversarial_distance(net, x, target, norm=norm, attacks="fast", bounds=(-9, 9))
        torch.testing.assert_close(found.distance, exact, rtol=1e-4, atol=1e-9)
        assert torch.equal(found.target, labels)
    wrong = adversarial_distance(net, x, 1 - labels, norm=norm, attacks="fast", bounds=(-9, 9))
    assert (wrong.distance == 0).all()


@SHAPES
def test_what_is_reported_is_the_logit_itself(flat: bool):
    net, x = _net(flat), _inputs()
    psi = net(x).detach().flatten()
    for target, sign in ((None, 1), (1, 1), (0, -1), (torch.ones(N), 1), (torch.zeros(N), -1)):
        found = homogeneous_decomposition(net, x, target)
        torch.testing.assert_close(found.score, sign * psi, **EXACT)
        torch.testing.assert_close(found.input + found.bias, sign * psi, **EXACT)
        curve = deletion_curve(net, x, x.abs(), target, baselines=0, per="value", of="score")
        torch.testing.assert_close(curve.value[:, 0], sign * psi, **EXACT)


@SHAPES
def test_the_probability_that_is_deleted_is_the_sigmoid_of_the_logit(flat: bool):
    net, x = _net(flat), _inputs()
    value = deletion_curve(net, x, x.abs(), 1, baselines=0, per="value").value
    torch.testing.assert_close(value[:, 0], net(x).detach().flatten().sigmoid(), **EXACT)


@SHAPES
def test_a_full_gradient_sums_to_the_logit(flat: bool):
    net = Psi(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1)), flat=flat)
    x = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    _centre(net, x)
    psi = net(x).detach().flatten()
    for target, sign in ((None, 1), (1, 1), (0, -1)):
        maps, delta = FullGradient(net).attribute(x, target, return_convergence_delta=True)
        torch.testing.assert_close(maps.sum((1, 2, 3)), sign * psi, **EXACT)
        torch.testing.assert_close(delta, torch.zeros(3, dtype=torch.float64), **EXACT)


@SHAPES
def test_a_profile_of_a_linear_logit_falls_to_the_boundary(flat: bool):
    margin = linearity_profile(_linear(flat), _inputs(), steps=4).margin
    torch.testing.assert_close(margin, torch.tensor([1, 0.75, 0.5, 0.25, 0]).double().expand(N, 5), **EXACT)


@SHAPES
def test_the_check_of_maps_takes_the_form_of_its_docstring(flat: bool):
    from captum.attr import InputXGradient

    net, x = _net(flat), _inputs()
    check = randomization_check(net, lambda m, x, t: InputXGradient(m).attribute(x, target=t), x)
    assert torch.equal(check.target, (net(x).flatten() > 0).long())


@SHAPES
@pytest.mark.parametrize("kind", [int, float])
def test_evaluate_counts_a_logit_of_the_right_sign_as_right(kind: type, flat: bool, tmp_path):
    net = Psi(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), flat=flat).float()
    x = torch.rand(8, 1, 4, 4)
    _centre(net, x)
    labels = (net(x).detach().flatten() > 0).long()
    assert labels.unique().tolist() == [0, 1]
    labels[0] = 1 - labels[0]
    data = [(image, kind(label)) for image, label in zip(x, labels.tolist(), strict=True)]
    frame = evaluate(net, data, out=tmp_path / "run", attacks=["deepfool"])
    assert int((frame["prediction"] == frame["label"]).sum()) == 7
    assert frame["label"].tolist() == labels.tolist()
    if flat and kind is float:  # once: a page takes long
        assert "87.5 %" in report([tmp_path / "run"]).read_text()
