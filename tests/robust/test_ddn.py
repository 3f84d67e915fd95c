import math

import pytest
import torch
from torch import nn

from captum_alignment._core._foolbox import ScoresModel
from captum_alignment.robust._ddn import ddn


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 255.0])
def test_affine_scores_reach_the_distance_to_the_chosen_rival(norm, scale):
    line = nn.Linear(5, 4, dtype=torch.float64)
    x = scale * torch.randn(15, 5, dtype=torch.float64)

    def net(x):
        scores = line(x / scale)
        return torch.cat([scores[:, :2], scores[:, 2:] - 100], 1)  # two classes alone can win

    labels = net(x).argmax(1)
    model = ScoresModel(net, (x,), None, (-100 * scale, 100 * scale))
    length, points = ddn(model, x, labels, 1 - labels, steps=100, norm=norm)
    weights = (line.weight[0] - line.weight[1]).detach() / scale
    true = (net(x)[:, 0] - net(x)[:, 1]).abs() / weights.norm(1 if norm == math.inf else 2)
    torch.testing.assert_close(length, true.detach(), rtol=5e-3, atol=0)
    assert (net(points).argmax(1) != labels).all()


def test_no_success_is_infinite():
    x = torch.rand(3, 4)
    model = ScoresModel(lambda x: x.sum(1, keepdim=True) * torch.tensor([1.0, -1.0]), (x,), None, (0, 1))
    length, points = ddn(model, x, torch.zeros(3).long(), torch.ones(3).long(), steps=10, norm=2)
    assert length.isposinf().all()
    assert torch.equal(points, x)
