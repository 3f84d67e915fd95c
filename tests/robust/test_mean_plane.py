import math

import pytest
import torch
from torch import nn

from captum_alignment._core._foolbox import ScoresModel
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


def test_no_success_is_infinite():
    x = torch.rand(3, 4)
    model = ScoresModel(lambda x: x.sum(1, keepdim=True) * torch.tensor([1.0, -1.0]), (x,), None, (0, 1))
    length, points = mean_plane(model, x, torch.zeros(3).long(), torch.ones(3).long(), steps=10, norm=2)
    assert length.isposinf().all()
    assert torch.equal(points, x)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_twelve_steps_come_nearer_than_twenty_of_fab_on_natural_nets(zoo, mnist, norm):
    x = mnist[0][:40]
    for name in ("mnist_mlp", "mnist_cnn"):
        net = zoo.load(name)
        with torch.no_grad():
            labels, rival = net(x).topk(2, 1).indices.unbind(1)
        model = ScoresModel(net, (x,), None, (0, 1))
        ours, _ = mean_plane(model, x, labels, rival, steps=12, norm=norm)
        theirs, _ = fab(model, x, labels, rival, steps=20, norm=norm)
        assert (ours / theirs).median() < 1
