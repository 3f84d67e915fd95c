import math

import pytest
import torch
from torch import nn

from captum_alignment import linear_analysis
from captum_alignment.metrics import direction_gap
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("make", [mlp, cnn, TwoInputs])
def test_both_splits_sum_to_the_gap(make, norm):
    net = make()
    inputs = {mlp: torch.rand(7, 6, dtype=torch.float64), cnn: images(), TwoInputs: two_inputs()}[make]
    before = snapshot(net)
    found = direction_gap(net, inputs, norm=norm)
    assert_unchanged(net, before)
    analysis = linear_analysis(net, inputs, norm=norm)
    assert torch.equal(found.rival, analysis.rival)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(found.gap, analysis.direction_gap, **close)
    torch.testing.assert_close(found.of_target + found.of_rival, analysis.direction_gap, **close)
    by_layer = found.of_score + sum(found.by_parameter.values())
    torch.testing.assert_close(by_layer, analysis.direction_gap, **close)
    torch.testing.assert_close(found.residual, torch.zeros_like(found.gap), **close)


def test_the_parts_are_the_literal_ones():
    """One sample, all gradients by hand."""
    net, x = mlp(), torch.rand(1, 6, dtype=torch.float64)
    found = direction_gap(net, x, 2)
    rival = int(found.rival)
    gradients = [torch.autograd.grad(net(x.requires_grad_())[0, k], x)[0][0] for k in (2, rival)]
    g, other = gradients
    x = x.detach()[0]
    margin = g - other
    s, t = torch.sign(x @ g), torch.sign(x @ margin)
    assert float(found.of_rival) == pytest.approx(float(-t * (x @ other) / margin.norm()), abs=1e-12)
    assert float(found.of_target) == pytest.approx(float(x @ g * (t / margin.norm() - s / g.norm())), abs=1e-12)
    scores = net(x[None])[0].detach()
    bias = list(net.parameters())[-1].detach()
    expected = s * bias[2] / g.norm() - t * (bias[2] - bias[rival]) / margin.norm()
    name = list(found.by_parameter)[-1]
    assert float(found.by_parameter[name]) == pytest.approx(float(expected), abs=1e-12)
    of_score = t * (scores[2] - scores[rival]) / margin.norm() - s * scores[2] / g.norm()
    assert float(found.of_score) == pytest.approx(float(of_score), abs=1e-12)


def test_without_biases_all_is_of_the_score():
    found = direction_gap(mlp(bias=False), torch.rand(5, 6, dtype=torch.float64))
    assert not found.by_parameter
    torch.testing.assert_close(found.of_score, found.gap)


def test_one_logit_has_no_gap():
    found = direction_gap(mlp(k=1), torch.rand(5, 6, dtype=torch.float64))
    for part in (found.gap, found.of_score, found.of_target + found.of_rival, *found.by_parameter.values()):
        torch.testing.assert_close(part, torch.zeros_like(part), rtol=0, atol=1e-12)


def test_what_is_not_piecewise_linear_is_in_the_residual():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4)).double()
    found = direction_gap(net, torch.rand(5, 6, dtype=torch.float64))
    assert (found.residual.abs() > 1e-6).all()
    total = found.of_score + sum(found.by_parameter.values()) + found.residual
    torch.testing.assert_close(total, found.gap, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.of_target + found.of_rival, found.gap, rtol=0, atol=1e-12)


def test_batches_change_nothing_and_a_flat_sample_has_no_parts():
    net, x = mlp(), torch.rand(7, 6, dtype=torch.float64)
    whole, batched = direction_gap(net, x), direction_gap(net, x, internal_batch_size=3)
    for name, part in whole.by_parameter.items():
        torch.testing.assert_close(batched.by_parameter[name], part)
    flat = direction_gap(lambda x: 0 * x.sum(1, keepdim=True) + torch.arange(3.0), torch.rand(2, 4))
    assert (flat.gap == 0).all()
    assert (flat.of_target == 0).all()
    assert list(whole.to_dataframe())[:5] == ["gap", "of_target", "of_rival", "of_score", "residual"]
    assert "  rival " in str(whole)
