import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import FAB
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
        return torch.tensor([2.0, 0.0]) + 0 * x.sum(1, keepdim=True)

    with pytest.warns(UserWarning, match=r"no adversarial for 3 of 3 samples \(zero gradient 3\), which is not"):
        result = adversarial_distance(net, torch.rand(3, 4), attacks=FAB(norm=norm), norm=norm)
    assert result.distance.isposinf().all()


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
    with pytest.raises(ValueError, match="norm: got 0, expected 1, 2 or inf"):
        FAB(norm=0)
    for name in ("rivals", "steps"):
        with pytest.raises(ValueError, match=f"{name}: got 0"):
            FAB(**{name: 0})
