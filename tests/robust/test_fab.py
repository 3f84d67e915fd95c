import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import FAB
from captum_alignment.robust._fab import _to_plane
from tests.nets import cnn, images

NORMS = [2, math.inf]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bound", [100.0, math.inf])
@pytest.mark.parametrize(("scale", "scores"), [(1e-3, 1.0), (1.0, 1e-120), (1.0, 1e120), (255.0, 1.0)])
def test_affine_scores_reach_the_true_distance_at_any_scale(norm, bound, scale, scores):
    line = nn.Linear(5, 4, dtype=torch.float64)
    x = scale * torch.randn(15, 5, dtype=torch.float64)

    def net(x):
        return scores * line(x / scale)

    bounds = (-bound * scale, bound * scale)
    result = adversarial_distance(net, x, attacks=FAB(norm=norm), norm=norm, bounds=bounds, refine=False)
    refined = adversarial_distance(net, x, attacks=FAB(norm=norm), norm=norm, bounds=bounds)
    rho = linear_analysis(net, x, norm=norm).linearized_robustness
    assert (result.distance >= rho * (1 - 1e-9)).all()
    assert (result.distance <= rho * 1.02).all()  # a step overshoots by 5 % of its length
    assert (refined.distance <= rho * 1.0005).all()


def by_bisection(center, normal, height, bounds, norm):
    """The shortest step to the plane: the step that the box cuts off at t, with t found by halving."""
    direction = -height.sign() * (normal if norm == 2 else normal.sign())

    def step(t):
        return (center + t * direction).clamp(*bounds) - center

    low, high = 0.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (normal * step(middle)).sum().abs() < height.abs() else (low, middle)
    return step(high)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(NORMS), st.sampled_from([-1.0, 1.0]), st.floats(0.0, 1.5))
def test_projects_onto_the_plane_inside_the_box(seed, norm, sign, share):
    generator = torch.Generator().manual_seed(seed)
    center, normal = (torch.rand(7, generator=generator, dtype=torch.float64) for _ in range(2))
    normal = normal - 0.4
    normal[0], center[1], center[2] = 0.0, 0.0, 1.0
    corner = (normal * torch.where(-sign * normal > 0, 1 - center, -center)).sum().abs()
    height = (sign * share * corner).reshape(1)  # beyond 1 the plane misses the box
    step = _to_plane(center.unsqueeze(0), normal.unsqueeze(0), height, (0.0, 1.0), norm)[0]
    expected = by_bisection(center, normal, height, (0.0, 1.0), norm)
    torch.testing.assert_close((normal * step).sum(), (normal * expected).sum(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_in_plain_foolbox_code(norm):
    net, x = cnn(), images(6)
    label = net(x).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    points, _, success = FAB(norm=norm)(model, x, label, epsilons=None)
    assert torch.equal(success, net(points).argmax(1) != label)
    assert success.any()
    assert torch.equal(points[~success], x[~success])


@pytest.mark.parametrize("norm", NORMS)
def test_constant_scores_fail_honestly(norm):
    def net(x):
        return torch.tensor([1.0, 0.0]) + 0 * x.sum(1, keepdim=True)

    assert adversarial_distance(net, torch.rand(3, 4), attacks=FAB(norm=norm), norm=norm).distance.isposinf().all()


def test_one_pass_for_each_step():
    net, x, sizes = cnn(), images(3), []
    handle = net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    FAB(rivals=2, steps=7).run(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, torch.zeros(3).long())
    handle.remove()
    assert sizes == [3] * (1 + 2 * 7)


def test_comes_nearer_than_ddn_on_robust_nets(zoo, mnist):
    x = mnist[0][:40]
    for name in ("mnist_kw", "mnist_madry"):
        attacks = {"fab": FAB(rivals=2), "ddn": fb.DDNAttack(steps=200)}
        gap = adversarial_distance(zoo.load(name), x, attacks=attacks).optimality_gap()
        assert gap["fab"].median() < 1.01
        assert gap["ddn"].median() > 1.1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="norm: got 1"):
        FAB(norm=1)
    for name in ("rivals", "steps"):
        with pytest.raises(ValueError, match=f"{name}: got 0"):
            FAB(**{name: 0})
