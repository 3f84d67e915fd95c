import math
from typing import Any

import pytest
import torch
from captum.attr import GradientAttribution, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max

from captum_alignment import LinearizedRobustness, alignment, linear_analysis
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_agrees_with_linear_analysis(norm):
    net, x = cnn(), images()
    method, r = LinearizedRobustness(net, norm=norm), linear_analysis(net, x, norm=norm)
    torch.testing.assert_close(method.attribute(x), r.binarized_gradient)
    torch.testing.assert_close(method.robustness(x), r.linearized_robustness)
    torch.testing.assert_close(alignment(x, method.attribute(x), norm=norm), r.binarized_alignment)


def test_is_the_gradient_of_the_margin_by_finite_differences():
    net, x = mlp(), torch.randn(5, 6, dtype=torch.float64)
    r = linear_analysis(net, x)
    gradient = LinearizedRobustness(net).attribute(x)
    step = 1e-6 * torch.randn_like(x)
    rows = torch.arange(5)

    def margin(x):
        scores = net(x)
        return scores[rows, r.target] - scores[rows, r.rival]

    torch.testing.assert_close(margin(x + step) - margin(x - step), 2 * (gradient * step).sum(1), rtol=1e-6, atol=1e-12)


def test_convergence_delta_is_the_bias_share():
    net, x = TwoInputs(), two_inputs()
    extra = (torch.randn(7, dtype=torch.float64), 2.0)
    method = LinearizedRobustness(net, multiply_by_inputs=True, internal_batch_size=3)
    assert isinstance(method, GradientAttribution)
    assert method.has_convergence_delta()
    assert method.multiplies_by_inputs
    attributions, delta = method.attribute(x, None, extra, return_convergence_delta=True)
    r = linear_analysis(net, x, None, extra)
    total = sum(a.flatten(1).sum(1) for a in attributions)
    torch.testing.assert_close(total - delta, r.gap)
    size = torch.cat([g.flatten(1) for g in r.binarized_gradient], 1).norm(dim=1)
    torch.testing.assert_close(delta, -r.bias * size)
    free = mlp(bias=False)
    y = torch.randn(4, 6, dtype=torch.float64)
    _, delta = LinearizedRobustness(free, multiply_by_inputs=True).attribute(y, return_convergence_delta=True)
    torch.testing.assert_close(delta, torch.zeros_like(delta), atol=1e-12, rtol=0)


def test_convergence_delta_needs_multiply_by_inputs():
    method = LinearizedRobustness(mlp())
    assert not method.has_convergence_delta()
    with pytest.raises(ValueError, match="return_convergence_delta"):
        method.attribute(torch.rand(1, 6, dtype=torch.float64), return_convergence_delta=True)


def test_tensor_in_tensor_out_tuple_in_tuple_out():
    x = torch.rand(3, 6, dtype=torch.float64)
    method = LinearizedRobustness(mlp())
    alone, (in_tuple,) = method.attribute(x), method.attribute((x,))
    assert torch.equal(alone, in_tuple)


def test_inside_noise_tunnel_with_targets_and_extras():
    net, x = TwoInputs(), two_inputs(4)
    extra = (torch.randn(4, dtype=torch.float64), 2.0)
    target = torch.tensor([0, 1, 2, 0])
    before = snapshot(net)
    tunnel = NoiseTunnel(LinearizedRobustness(net))
    maps: Any = tunnel.attribute(
        x, nt_type="smoothgrad", nt_samples=6, stdevs=0.05, target=target, additional_forward_args=extra
    )
    assert [m.shape for m in maps] == [t.shape for t in x]
    still: Any = tunnel.attribute(x, nt_samples=2, stdevs=0.0, target=target, additional_forward_args=extra)
    for a, b in zip(still, LinearizedRobustness(net).attribute(x, target, extra), strict=True):
        torch.testing.assert_close(a, b)
    assert_unchanged(net, before)


def test_a_noise_tunnel_needs_a_fixed_target():
    net, x = mlp(), torch.rand(3, 6, dtype=torch.float64)
    method = LinearizedRobustness(net)
    options: dict[str, Any]
    for options in ({}, {"target": None}):
        with pytest.raises(ValueError, match="target: got None inside a NoiseTunnel"):
            NoiseTunnel(method).attribute(x, nt_samples=2, **options)
    target = net(x).argmax(1)
    still = NoiseTunnel(method).attribute(x, nt_samples=2, stdevs=0.0, target=target)
    torch.testing.assert_close(still, method.attribute(x))


def test_inside_captum_metrics():
    net, x = cnn(), images(3)
    method = LinearizedRobustness(net)
    with torch.no_grad():
        change: torch.Tensor = sensitivity_max(method.attribute, x, perturb_radius=0.01, n_perturb_samples=3)
    assert change.shape == (3,)
    assert change.isfinite().all()

    def perturb(inputs):
        noise = 1e-4 * torch.randn_like(inputs)
        return noise, inputs - noise

    r = linear_analysis(net, x)

    def margin(x):
        scores, n = net(x), len(x) // 3
        t, j = (c.repeat_interleave(n).unsqueeze(1) for c in (r.target, r.rival))
        return (scores.gather(1, t) - scores.gather(1, j)).squeeze(1)

    error = infidelity(margin, perturb, x, method.attribute(x), n_perturb_samples=4)
    wrong = infidelity(margin, perturb, x, 2 * method.attribute(x), n_perturb_samples=4)
    assert (error < 1e-3 * wrong).all()


def test_inside_captum_metrics_with_tuples():
    net, x = TwoInputs(), two_inputs(3)
    change = sensitivity_max(
        LinearizedRobustness(net).attribute, x, perturb_radius=0.01, target=1, additional_forward_args=(None, 2.0)
    )
    assert change.isfinite().all()


def test_mutates_nothing_even_after_an_error():
    net, x = cnn(), images(2).requires_grad_()
    x.grad = torch.ones_like(x)
    before = snapshot(net)
    with torch.no_grad():
        LinearizedRobustness(net).attribute(x)
    with pytest.raises(ValueError, match="target"):
        LinearizedRobustness(net).attribute(x, target=9)
    assert_unchanged(net, before)
    assert x.requires_grad
    assert torch.equal(x.grad, torch.ones_like(x))
