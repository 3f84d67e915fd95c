import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import FAB, RivalSearch
from captum_alignment.robust._rival_search import _LAST_STARTS, _POLISH
from tests.nets import cnn, images, mlp

NORMS = [1, 2, math.inf]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 255.0])
def test_affine_scores_reach_the_true_distance_at_any_scale(norm, scale):
    line = nn.Linear(5, 4, dtype=torch.float64)
    x = scale * torch.randn(15, 5, dtype=torch.float64)

    def net(x):
        return line(x / scale)

    result = adversarial_distance(net, x, attacks=RivalSearch(norm=norm), norm=norm, bounds=(-100 * scale, 100 * scale))
    rho = linear_analysis(net, x, norm=norm).linearized_robustness
    assert (result.distance >= rho * (1 - 1e-9)).all()
    assert (result.distance <= rho * 1.02).all()


def test_affine_scores_within_bounds_in_l_1():
    """The nearest point goes along the steepest features, each as far as its bound."""
    net, x = nn.Linear(30, 4, dtype=torch.float64), torch.rand(20, 30, dtype=torch.float64)
    weight, scores = net.weight.detach(), net(x).detach()
    label = scores.argmax(1)
    exact = torch.full((20,), math.inf, dtype=torch.float64)
    for i in range(20):
        for rival in set(range(4)) - {int(label[i])}:
            slope = weight[label[i]] - weight[rival]
            missing, length = scores[i, label[i]] - scores[i, rival], 0.0
            for j in slope.abs().argsort(descending=True):
                room = x[i, j] if slope[j] > 0 else 1 - x[i, j]
                step = min(room, missing / slope[j].abs())
                missing, length = missing - step * slope[j].abs(), length + float(step)
            exact[i] = min(exact[i], length if missing < 1e-12 else math.inf)
    found = adversarial_distance(net, x, norm=1).distance
    assert exact.isfinite().any()
    assert torch.equal(found.isfinite(), exact.isfinite())
    ratio = (found / exact)[exact.isfinite()]
    assert ((ratio > 1 - 1e-9) & (ratio < 1.01)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_in_plain_foolbox_code(norm):
    net, x = cnn(), images(6)
    label = net(x).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    points, _, success = RivalSearch(norm=norm)(model, x, label, epsilons=None)
    assert torch.equal(success, net(points).argmax(1) != label)
    assert success.any()
    assert torch.equal(points[~success], x[~success])


def test_rivals_beyond_the_classes_change_nothing():
    net, x = mlp(k=6), torch.rand(10, 6, dtype=torch.float64)

    def found(**options):
        return adversarial_distance(net, x, attacks=RivalSearch(**options), bounds=(-3, 4), refine=False).distance

    expected = found(likely=5, rivals=5)
    assert expected.isfinite().all()
    assert torch.equal(found(likely=9, rivals=9), expected)


def forwards(net, x, **options):
    """The samples that each forward pass of an attack sees."""
    sizes = []

    class Counting(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return net(x)

    model = foolbox.PyTorchModel(Counting().eval(), bounds=(-100, 100), device="cpu")
    RivalSearch(**options).run(model, x, torch.zeros(len(x), dtype=torch.long))
    return sizes


# Affine scores whose boundaries lie at 1 (class 1), 1.02 (class 2), 1.3 (class 3) and 20 (class 4) from the origin.
LINE = nn.Linear(4, 5, dtype=torch.float64).eval()
LINE.weight.data = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double()
LINE.bias.data = -torch.tensor([0.0, 1.0, 1.02, 1.3, 20.0]).double()


@pytest.mark.parametrize(("reach", "runs"), [(1.0, 1), (1.2, 2), (1.5, 3), (100, 4)])
def test_rivals_out_of_reach_get_no_run(reach, runs):
    x = torch.zeros(5, 4, dtype=torch.float64)
    sizes = forwards(LINE, x, rivals=4, reach=reach, short=7, starts=0)
    assert sizes == [5] * (1 + runs * 7 + _POLISH)


@pytest.mark.parametrize("hops", [1, 4])
def test_the_nearest_point_s_rival_gets_hops(hops):
    x = torch.zeros(5, 4, dtype=torch.float64)
    sizes = forwards(LINE, x, rivals=4, reach=1.5, short=7, starts=0, hops=hops, hop=11)
    assert sizes == [5] * (1 + 3 * 7 + hops * 11 + _POLISH)


@pytest.mark.parametrize(("starts", "likely"), [(0, 3), (1, 1), (3, 2)])
def test_likely_rivals_get_projections_from_every_start(starts, likely):
    x = torch.zeros(5, 4, dtype=torch.float64)
    sizes = forwards(LINE, x, rivals=1, short=7, starts=starts, likely=likely, projections=5)
    assert sizes == [5] * (1 + 7 + starts * likely * 5 + _POLISH)


def test_what_cannot_be_shaken_gets_more_starts_and_fails():
    def unshakeable(x):
        return torch.stack([1 - x[:, 0].sigmoid(), 0 * x[:, 0]], 1)

    x = torch.zeros(2, 1, dtype=torch.float64)
    assert forwards(unshakeable, x, short=3, projections=7) == [2] * (1 + 3 + (1 + _LAST_STARTS) * 7)
    with pytest.warns(UserWarning, match=r"no adversarial for 2 of 2 samples \(nothing found 2\), which is not robust"):
        result = adversarial_distance(unshakeable, x, attacks=RivalSearch(), bounds=(-9, 9))
    assert result.distance.isposinf().all()


@pytest.mark.parametrize(("attacks", "farther"), [("fast", 1.5), ("thorough", 1.2)])
@pytest.mark.parametrize("norm", NORMS)
def test_flat_around_the_input_is_left_from_far_away(norm, attacks, farther):
    def net(x):  # no gradient up to .55, and none at .5
        return torch.stack([0.2 + 0 * x[:, 0], (x - 0.55).relu().sum(1)], 1)

    x = torch.full((3, 2), 0.5, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"the distance of 3 of 3 samples may be far too large \(zero gradient 3\)"):
        result = adversarial_distance(net, x, attacks=attacks, norm=norm)
    nearest = 0.15 * {1: 5 / 3, 2: 2**0.5}.get(norm, 1.0)  # in l_1 one feature alone goes to .75
    assert (result.distance >= nearest * (1 - 1e-6)).all()
    assert (result.distance <= nearest * farther).all()
    assert result.reason == ("zero gradient",) * 3


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_image_of_a_given_class(norm):
    x = torch.zeros(4, 4, dtype=torch.float64)
    goal = torch.tensor([1, 2, 3, 0])
    model = foolbox.PyTorchModel(LINE, bounds=(-100, 100), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(goal)
    points, _, success = RivalSearch(norm=norm, starts=2)(model, x, criterion, epsilons=None)
    assert success.all()
    assert torch.equal(LINE(points).argmax(1), goal)
    assert torch.equal(points[3], x[3])  # class 0 is its own
    size = (points - x).norm(norm, dim=1)
    torch.testing.assert_close(size[:3], torch.tensor([1, 1.02, 1.3]).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_beats_foolbox_s_attacks_on_a_robust_net(zoo, mnist, norm):
    net, x = zoo.load("mnist_kw"), mnist[0][:40]
    peer = fb.DDNAttack(steps=200) if norm == 2 else fb.LInfFMNAttack(steps=200)
    attacks = {"ours": RivalSearch(norm=norm), "foolbox": peer}
    gap = adversarial_distance(net, x, attacks=attacks, norm=norm).optimality_gap()
    assert gap["ours"].median() < 1.01
    assert gap["ours"].mean() < 1.05
    assert gap["foolbox"].mean() > 1.3


@pytest.mark.parametrize("norm", NORMS)
def test_is_not_misled_by_saturated_probabilities(zoo, mnist, norm):
    """Where gradients have nearly vanished at the input, the linearized distance is far too large."""
    net, x = zoo.load("mnist_mlp"), mnist[0][:40]
    attacks = {"ours": RivalSearch(norm=norm), "fab": FAB(norm=norm, rivals=4, steps=60)}
    gap = adversarial_distance(lambda x: (2 * net(x)).softmax(1) * 3, x, attacks=attacks, norm=norm).optimality_gap()
    assert gap["ours"].median() < 1.05
    assert gap["ours"].mean() < 1.2


def test_portfolios_are_ordered(zoo, mnist):
    x = mnist[0][:30]
    for norm in NORMS:
        fast, thorough = (
            adversarial_distance(zoo.load("mnist_mlp"), x, attacks=name, norm=norm).distance
            for name in ("fast", "thorough")
        )
        assert thorough.isfinite().all()
        assert thorough.mean() <= fast.mean() <= 1.03 * thorough.mean()
        assert (fast / thorough).median() <= 1.01


def test_in_l1_thorough_is_never_behind_fast(zoo, mnist):
    """Their searches end in different valleys, so the one has to run the other's."""
    x = mnist[0][100:112]
    fast, thorough = (
        adversarial_distance(zoo.load("mnist_kw"), x, attacks=name, norm=1).distance for name in ("fast", "thorough")
    )
    assert (thorough <= fast).all()
    assert thorough.median() < 0.9 * fast.median()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="norm: got 3, expected 1, 2 or inf"):
        RivalSearch(norm=3)
    for name in ("rivals", "starts", "hops", "likely", "short", "projections", "hop"):
        with pytest.raises(ValueError, match=f"{name}: got -1"):
            RivalSearch(**{name: -1})
    with pytest.raises(ValueError, match=r"reach: got 0\.9, expected a number"):
        RivalSearch(reach=0.9)
