import math

import pytest
import torch
from torch import nn

from captum_alignment._core._foolbox import ScoresModel
from captum_alignment.robust._attack import margin
from captum_alignment.robust._fab import fab
from captum_alignment.robust._mean_plane import mean_plane


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(("scale", "scores"), [(1e-3, 1.0), (1.0, 1e-120), (1.0, 1e120), (255.0, 1.0)])
def test_affine_scores_reach_the_distance_to_the_chosen_rival_at_any_scale(norm, steps, scale, scores):
    line = nn.Linear(5, 4, dtype=torch.float64)
    x = scale * torch.randn(15, 5, dtype=torch.float64)

    def net(x):
        values = line(x / scale)
        return scores * torch.cat([values[:, :2], values[:, 2:] - 100], 1)  # two classes alone can win

    labels = net(x).argmax(1)
    model = ScoresModel(net, (x,), None, (-100 * scale, 100 * scale))
    length, points = mean_plane(model, x, labels, 1 - labels, steps=1 + steps, norm=norm)
    weights = (line.weight[0] - line.weight[1]).detach() / scale
    true = (line(x / scale)[:, 0] - line(x / scale)[:, 1]).abs() / weights.norm(1 if norm == math.inf else 2)
    assert (length >= true * (1 - 1e-9)).all()
    assert (length <= true * (1.11 if steps == 1 else 1.05)).all()  # the first step overshoots by a tenth
    assert (net(points).argmax(1) != labels).all()


def test_steps_that_fall_short_overshoot_until_one_crosses():
    def net(x):  # convex: every plane crosses zero before the boundary at log 5
        return torch.cat([(-x).exp(), 0 * x + 0.2], 1)

    x, zero = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    length, _ = mean_plane(ScoresModel(net, (x,), None, (-20, 20)), x, zero, zero + 1, steps=12, norm=2)
    assert math.log(5) < length.item() < 1.01 * math.log(5)


def test_no_success_is_infinite():
    x = torch.rand(3, 4)
    model = ScoresModel(lambda x: x.sum(1, keepdim=True) * torch.tensor([1.0, -1.0]), (x,), None, (0, 1))
    length, points = mean_plane(model, x, torch.zeros(3).long(), torch.ones(3).long(), steps=10, norm=2)
    assert length.isposinf().all()
    assert torch.equal(points, x)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_the_mean_comes_nearer_than_the_newest_plane_alone_and_than_fab(zoo, mnist, norm, monkeypatch):
    x = mnist[0][:40]
    net = zoo.load("mnist_mlp")
    with torch.no_grad():
        labels, rival = net(x).topk(2, 1).indices.unbind(1)
    model = ScoresModel(net, (x,), None, (0, 1))
    ours, _ = mean_plane(model, x, labels, rival, steps=12, norm=norm)
    theirs, _ = fab(model, x, labels, rival, steps=20, norm=norm)
    monkeypatch.setattr("captum_alignment.robust._mean_plane._NEWEST", 1)
    newest, _ = mean_plane(model, x, labels, rival, steps=12, norm=norm)
    assert ours.median() < theirs.median()
    assert ours.median() < newest.median()


@pytest.mark.parametrize("hole", [math.nan, math.inf])
def test_scores_that_overflow_on_the_way_are_no_adversarials_and_leave_the_mean_as_it_is(hole):
    def net(x):  # the boundary lies at 1, and the first step lands in the hole behind it
        other = torch.where((x > 1.06) & (x < 1.25), hole, 0 * x)
        return torch.cat([1 - x, other], 1)

    x, zero = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    model = ScoresModel(net, (x,), None, (0, 4))
    length, points = mean_plane(model, x, zero, zero + 1, steps=12, norm=2)
    assert net(points).isfinite().all()
    assert 1 <= length.item() <= 1.06
    assert margin(model, x + 1.1, zero, zero + 1)[0].tolist() == [False]
    assert margin(model, x + 1.3, zero, zero + 1)[0].tolist() == [True]
