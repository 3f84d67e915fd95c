import math
from itertools import islice

import pytest
import torch

from captum_alignment.robust._starts import around, box, starts


def test_starts_lie_inside_and_do_not_depend_on_the_batch():
    x = torch.rand(3, 2, 4)
    for whole, alone in zip(islice(starts(x, (0, 1)), 4), islice(starts(x[1:2], (0, 1)), 4), strict=True):
        assert ((whole >= 0) & (whole <= 1)).all()
        torch.testing.assert_close(whole[1:2], alone)
    first = next(starts(x, (0, 1)))
    torch.testing.assert_close(first, 0.3 * x + 0.35)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_hops_keep_to_their_share_of_the_distance(norm):
    x = torch.rand(3, 5, dtype=torch.float64)
    nearest = x + 0.1 * torch.rand(3, 5, dtype=torch.float64)
    distance = (nearest - x).norm(norm, dim=1)
    for number, (way, spread) in enumerate([(1.0, 2.0), (3.0, 1.0)]):
        moved = around(x, nearest, norm, number) - (x + way * (nearest - x))
        assert (moved.norm(norm, dim=1) <= spread * distance * (1 + 1e-9)).all()
        assert (moved.norm(norm, dim=1) > 0).all()


def test_a_box_without_ends_is_three_times_the_range_of_each_sample():
    low, high = box(torch.tensor([[0.0, 1.0], [2.0, 2.0]]), (-math.inf, math.inf))
    assert low.flatten().tolist() == [-1, 0]
    assert high.flatten().tolist() == [2, 4]
    low, high = box(torch.tensor([[0.0, 1.0]]), (0, math.inf))
    assert (float(low), float(high)) == (0, 2)
