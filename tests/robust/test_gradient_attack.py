import math

import foolbox
import pytest
import torch
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import GradientAttack
from tests.nets import cnn, images


def literal_search(net, x, label, norm, steps, bounds=(0.0, 1.0)):
    """One loss gradient, then every step size in turn; the first that changes the class."""
    leaf = x.detach().clone().requires_grad_()
    (h,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf.unsqueeze(0)), label.unsqueeze(0)), leaf)
    h = h / h.norm() if norm == 2 else h.sign()
    largest = (bounds[1] - bounds[0]) * (math.sqrt(x.numel()) if norm == 2 else 1)
    for k in range(1, steps + 1):
        moved = (x + k / steps * largest * h).clamp(*bounds)
        if net(moved.unsqueeze(0)).argmax() != label:
            return (moved - x).flatten().norm(norm).item()
    return math.inf


@pytest.mark.parametrize("norm", [2, math.inf])
def test_in_plain_foolbox_code_against_the_literal_search(norm):
    net, x = cnn(), images(10)
    label = net(x).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = GradientAttack(norm=norm, steps=400)
    raw, clipped, success = attack(model, x, label, epsilons=None)
    assert torch.equal(raw, clipped)
    assert success.any()
    for i in range(10):
        expected = literal_search(net, x[i], label[i], norm, 400)
        assert math.isfinite(expected) == bool(success[i])
        if success[i]:
            distance = float((raw[i] - x[i]).flatten().norm(norm))
            step = (math.sqrt(x[i].numel()) if norm == 2 else 1) / 400
            assert expected - step * 1.001 <= distance <= expected
    _, _, within = attack(model, x, label, epsilons=[0.0, 100.0])
    assert not within[0].any()
    assert torch.equal(within[1], success)


def test_the_loss_gradient_survives_a_saturated_softmax():
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.mul_(1e4)  # the float32 softmax is exactly one-hot: the loss has no gradient left
    x = torch.rand(6, 4)
    label = net(x).argmax(1)
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(leaf), label, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert (gradient.flatten(1).norm(dim=1) == 0).any()
    result = adversarial_distance(net, x, attacks=GradientAttack(), bounds=(-50, 50))
    rho = linear_analysis(net, x).linearized_robustness
    assert result.distance.isfinite().all()
    assert (result.distance >= rho * 0.999).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="norm: got 1"):
        GradientAttack(norm=1)
    with pytest.raises(ValueError, match="steps: got 0"):
        GradientAttack(steps=0)
    net, x = cnn(), images(2)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    with pytest.raises(ValueError, match="expected Misclassification"):
        GradientAttack()(model, x, foolbox.criteria.TargetedMisclassification(torch.zeros(2).long()), epsilons=None)
    endless = foolbox.PyTorchModel(net, bounds=(-math.inf, math.inf), device="cpu")
    with pytest.raises(ValueError, match="finite bounds"):
        GradientAttack()(endless, x, torch.zeros(2).long(), epsilons=None)
    with pytest.raises(TypeError):
        GradientAttack()(model, x, torch.zeros(2).long(), epsilons=None, unknown=1)


def test_text_tells_the_configuration():
    assert repr(GradientAttack(steps=3)) == "GradientAttack(norm=2, steps=3)"
