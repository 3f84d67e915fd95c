"""Networks that mask their gradients on purpose, and the attack that does not need them."""

import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import DecisionSearch
from tests.nets import cnn, images

MASKS = {
    "saturated": lambda net: lambda x: (100 * net(x)).softmax(1) * 2,
    "rounded": lambda net: lambda x: net((8 * x).round() / 8),
    "threshold": lambda net: lambda x: net((x > 0.5).to(x.dtype)),
    # A student of defensive distillation is trained at temperature 100 and used at 1: its logits are 100 times larger.
    "distilled": lambda net: lambda x: (100 * net(x)).softmax(1).clamp(min=1e-30).log(),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.filterwarnings("ignore")  # what thorough says is in the reason
def test_thorough_finds_what_the_boundary_attack_does_or_says_so(zoo, mnist, mask):
    x = mnist[0][1:3].float()
    net = MASKS[mask](zoo.load("mnist_mlp"))
    attack = {"boundary": fb.BoundaryAttack(steps=500)}
    ours, theirs = adversarial_distance(net, x, attacks="thorough"), adversarial_distance(net, x, attacks=attack)
    assert ours.distance.isfinite().all()
    assert ours.distance.median() <= theirs.distance.median()
    farther = ours.distance > theirs.distance
    assert all(why for why, far in zip(ours.reason, farther.tolist(), strict=True) if far)


@pytest.mark.filterwarnings("ignore")
def test_hidden_gradients_are_said_whatever_was_found(zoo, mnist):
    x = mnist[0][:6].float()
    net = MASKS["rounded"](zoo.load("mnist_mlp"))
    fast = adversarial_distance(net, x)
    assert fast.reason == ("zero gradient",) * 6
    assert (fast.robust_accuracy(0) < 1).all() or fast.distance.isfinite().all()


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_affine_boundaries_are_found_within_any_bounds(norm, scale):
    line = nn.Linear(6, 3, dtype=torch.float64)
    x = torch.rand(5, 6, dtype=torch.float64) * scale

    def net(x):
        return line(x / scale)

    rho = linear_analysis(net, x, norm=norm).linearized_robustness
    bounds = (-2 * scale, 3 * scale)
    found = adversarial_distance(net, x, attacks=DecisionSearch(norm=norm), norm=norm, bounds=bounds)
    assert (found.distance >= rho * (1 - 1e-9)).all()
    assert (found.distance <= 1.3 * rho).all()
    assert found.passes["DecisionSearch"][1] == 0


def test_samples_without_a_start_and_misclassified_ones_come_back_as_they_are():
    net, x = cnn(dtype=torch.float32), images(6, torch.float32)
    labels = net(x).argmax(1)
    labels[0] = (labels[0] + 1) % 5
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    points, _, success = DecisionSearch(steps=3)(model, x, labels, epsilons=None)
    assert torch.equal(points[0], x[0])
    assert success.any()
    constant = foolbox.PyTorchModel(Constant().eval(), bounds=(0, 1), device="cpu")
    points, _, success = DecisionSearch(steps=3)(constant, x, torch.zeros(6).long(), epsilons=None)
    assert torch.equal(points, x)
    assert not success.any()


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1).sum(1, keepdim=True)
