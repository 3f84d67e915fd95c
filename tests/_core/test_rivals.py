"""The plain search, beside a loop written out; the faster one is compared with it in test_sketch.py."""

import math

import pytest
import torch

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._rivals import check_candidates, linearized_distance, loop
from tests.nets import mlp

NET = mlp(dtype=torch.float64)


def graph_of(x: torch.Tensor) -> tuple[ScoreGraph, torch.Tensor, torch.Tensor]:
    graph = ScoreGraph(NET, (x,), None)
    target = graph.scores.argmax(1)
    scores = graph.scores.detach()
    return graph, target, scores.gather(1, target[:, None]) - scores


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_the_loop_is_the_minimum_over_rivals_one_by_one(norm):
    x = torch.rand(5, 6, dtype=torch.float64)
    graph, target, gap = graph_of(x)
    classes = gap.shape[1]
    found = loop(graph, target, gap, norm, [classes - 1] * 5)
    q = {1: math.inf, 2: 2, math.inf: 1}[norm]
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda row: NET(row[None])[0], x[i])
        assert isinstance(jacobian, torch.Tensor)
        distances = {
            j: float(gap[i, j] / (jacobian[target[i]] - jacobian[j]).norm(q)) for j in range(classes) if j != target[i]
        }
        nearest = min(distances, key=distances.__getitem__)
        assert int(found.rival[i]) == nearest
        assert float(found.distance[i]) == pytest.approx(distances[nearest], rel=1e-12)
    assert found.passes.tolist() == [classes - 1] * 5


def test_samples_with_fewer_counts_leave_and_keep_what_they_have():
    graph, target, gap = graph_of(torch.rand(4, 6, dtype=torch.float64))
    counts = [1, gap.shape[1] - 1, 1, 1]
    some, whole = (loop(graph, target, gap, 2, each) for each in (counts, [gap.shape[1] - 1] * 4))
    first = loop(graph, target, gap, 2, [1] * 4)
    assert some.passes.tolist() == [1, gap.shape[1], 1, 1]  # one more, the forward pass of those that go on
    assert some.distance[1] == whole.distance[1]
    assert torch.equal(some.distance[[0, 2, 3]], first.distance[[0, 2, 3]])


def test_ties_are_at_no_distance_and_other_gaps_without_a_gradient_at_any():
    gap, size = torch.tensor([0.0, 1.0, -1.0, math.inf, 2.0]), torch.tensor([0.0, 0.0, 0.0, math.nan, 4.0])
    assert linearized_distance(gap, size).tolist() == [0, math.inf, -math.inf, math.inf, 0.5]


@pytest.mark.parametrize("candidates", [0, -1, 1.5, True])
def test_candidates_are_a_positive_number_or_none(candidates):
    check_candidates(None)
    with pytest.raises(ValueError, match=r"candidates: got .*, expected a positive integer or None"):
        check_candidates(candidates)
