"""l(x): equal to brute force over all units; the pattern changes just outside and nowhere inside."""

import math

import pytest
import torch
from torch import nn

from captum_alignment.metrics import linear_region
from captum_alignment.robust import NotPiecewiseLinear, adversarial_distance
from tests.nets import assert_unchanged, cnn, images, mlp, snapshot

DUALS = {1: math.inf, 2: 2, math.inf: 1}


def brute_force(kinks, x, norm):
    """min |z| / ‖∇z‖ over every z of one sample, one gradient after the other."""
    x = x.clone().requires_grad_()
    best = math.inf
    for z in kinks(x):
        (g,) = torch.autograd.grad(z, x, retain_graph=True)
        size = float(torch.linalg.vector_norm(g.flatten(), DUALS[norm]))
        if size > 0:
            best = min(best, float(z.detach().abs()) / size)
    return best


def mlp_kinks(net):
    return lambda x: torch.cat([net[:2](x).flatten(), net[:4](x).flatten()])


def cnn_kinks(net):
    def kinks(x):
        z = net[:2](x)
        windows = nn.functional.unfold(z.relu().transpose(0, 1), 2, stride=2)  # (channels, 4, windows)
        top = windows.amax(1, keepdim=True)
        first = windows.argmax(1, keepdim=True)
        leads = (top - windows)[torch.ones_like(windows).scatter(1, first, 0).bool()]
        second = net[4](net[:4](x))
        return torch.cat([z.flatten(), leads, second.flatten()])

    return kinks


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_equals_brute_force(norm):
    net, x = mlp(), torch.rand(4, 6).double()
    found = linear_region(net, x, norm=norm).radius
    expected = [brute_force(mlp_kinks(net), x[i : i + 1], norm) for i in range(4)]
    torch.testing.assert_close(found, torch.tensor(expected).double())


@pytest.mark.parametrize("norm", [2, math.inf])
def test_equals_brute_force_with_max_pooling_and_batch_norm(norm):
    net, x = cnn(), images(2)
    before = snapshot(net)
    found = linear_region(net, x, norm=norm).radius
    expected = [brute_force(cnn_kinks(net), x[i : i + 1], norm) for i in range(2)]
    # A window of ReLUs that are all 0 has leads that are 0 all around.
    torch.testing.assert_close(found, torch.tensor(expected).double())
    assert_unchanged(net, before)


def test_the_pattern_changes_outside_and_not_inside():
    net, x = mlp(), torch.rand(3, 6).double()
    radius = linear_region(net, x).radius
    kinks = mlp_kinks(net)
    for i in range(3):
        point = x[i : i + 1]
        pattern = kinks(point) > 0
        d = torch.randn(3000, 6).double()
        d = d / d.norm(dim=1, keepdim=True)
        inside = torch.stack([kinks(point + 0.9999 * radius[i] * v[None]) > 0 for v in d[:300]])
        assert (inside == pattern).all()
        leaf = point.clone().requires_grad_()
        z = kinks(leaf)
        gradients = torch.stack([torch.autograd.grad(u, leaf, retain_graph=True)[0][0] for u in z])
        nearest = (z.abs() / gradients.norm(dim=1)).argmin()
        step = -z[nearest].sign() * gradients[nearest] / gradients[nearest].norm()
        assert (kinks(point + 1.0001 * radius[i] * step) > 0)[nearest] != pattern[nearest]


def test_what_one_ray_cannot_show():
    def scores(x):
        return torch.stack([1 - x[:, 0], torch.zeros_like(x[:, 0]), 100 * (x[:, 1] - 0.1).relu() - 1], 1)

    region = linear_region(scores, torch.zeros(1, 2).double())
    assert float(region.radius) == pytest.approx(0.1)
    assert float(region.linearized_robustness) == pytest.approx(1)
    assert not region.applies
    assert float(region.certificate) == pytest.approx(0.1)


def test_lemma_1_where_it_applies():
    net = nn.Linear(4, 3).double()
    x = torch.randn(5, 4).double()
    region = linear_region(net, x)
    assert region.radius.isinf().all()
    assert region.applies.all()
    rho = adversarial_distance(net, x, bounds=(-50, 50)).distance
    torch.testing.assert_close(region.certificate, rho, rtol=0.01, atol=0)


def test_refused_and_zero():
    with pytest.raises(NotPiecewiseLinear, match="gelu"):
        linear_region(nn.Sequential(nn.Linear(4, 4), nn.GELU()), torch.rand(2, 4))
    net, x = mlp(), torch.rand(3, 6).double()
    wrong = (net(x).argmax(1) + 1) % 4
    region = linear_region(net, x, wrong)
    assert (region.certificate == 0).all()
    assert not region.applies.any()
