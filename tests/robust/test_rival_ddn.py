import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import RivalDDN
from tests.nets import cnn, images, mlp

NORMS = [2, math.inf]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 255.0])
def test_affine_scores_reach_the_true_distance_at_any_scale(norm, scale):
    line = nn.Linear(5, 4, dtype=torch.float64)
    x = scale * torch.randn(15, 5, dtype=torch.float64)

    def net(x):
        return line(x / scale)

    result = adversarial_distance(net, x, attacks=RivalDDN(norm=norm), norm=norm, bounds=(-100 * scale, 100 * scale))
    rho = linear_analysis(net, x, norm=norm).linearized_robustness
    assert (result.distance >= rho * (1 - 1e-9)).all()
    assert (result.distance <= rho * 1.02).all()


@pytest.mark.parametrize("norm", NORMS)
def test_in_plain_foolbox_code(norm):
    net, x = cnn(), images(6)
    label = net(x).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    points, _, success = RivalDDN(norm=norm)(model, x, label, epsilons=None)
    assert torch.equal(success, net(points).argmax(1) != label)
    assert success.any()
    assert torch.equal(points[~success], x[~success])


def test_more_rivals_are_never_worse():
    net, x = mlp(k=6), torch.rand(10, 6, dtype=torch.float64)

    def found(**options):
        return adversarial_distance(net, x, attacks=RivalDDN(**options), bounds=(-3, 4), refine=False).distance

    assert (found(likely=1, others=4) <= found(likely=1, others=0)).all()
    assert (found(likely=4, others=0) <= found(likely=1, others=0)).all()
    assert torch.equal(found(likely=9, others=9), found(likely=5, others=0))


def test_beats_foolbox_s_ddn_on_a_robust_net(zoo, mnist):
    net, x = zoo.load("mnist_kw"), mnist[0][:40]
    result = adversarial_distance(net, x, attacks={"ours": RivalDDN(), "ddn": fb.DDNAttack(steps=200)})
    gap = result.optimality_gap()
    assert gap["ours"].mean() < 1.05
    assert gap["ddn"].mean() > 1.1


def test_portfolios_are_ordered(zoo, mnist):
    x = mnist[0][:60]
    for norm in NORMS:
        fast, thorough = (
            adversarial_distance(zoo.load("mnist_mlp"), x, attacks=name, norm=norm).distance
            for name in ("fast", "thorough")
        )
        assert 0.999 * thorough.median() <= fast.median() <= 1.02 * thorough.median()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="norm: got 1"):
        RivalDDN(norm=1)
    for name in ("likely", "others", "long", "short"):
        with pytest.raises(ValueError, match=f"{name}: got -1"):
            RivalDDN(**{name: -1})
