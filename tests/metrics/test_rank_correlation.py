"""Rank correlation against scipy's."""

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_alignment.metrics import rank_correlation


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 99))
def test_rank_correlation_is_scipys(size, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(0, levels + 1, (5, size), generator=generator).double()  # many ties
    b = torch.randn(5, size, generator=generator, dtype=torch.float64)
    found = rank_correlation(a, b)
    for u, v, value in zip(a, b, found, strict=True):
        if len(u.unique()) == 1:
            assert value.isnan()
        else:
            expected = float(scipy.stats.spearmanr(u.numpy(), v.numpy()).statistic)  # pyright: ignore
            assert float(value) == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(rank_correlation((a[:, :1], a[:, 1:]), (b[:, :1], b[:, 1:])), found, equal_nan=True)


def test_rank_correlation_of_a_map_with_itself_is_exactly_1():
    a = torch.randn(50, 3, 17, 17)
    assert (rank_correlation(a, a) == 1).all()
    assert (rank_correlation(a, -3 * a) == -1).all()
    a[0, 0, 0, 0] = float("nan")
    assert rank_correlation(a, a).isnan().tolist() == [True] + [False] * 49
    with pytest.raises(ValueError, match=r"others: got shapes \[\(2, 4\)\], expected those of the attributions"):
        rank_correlation(torch.rand(2, 3), torch.rand(2, 4))
