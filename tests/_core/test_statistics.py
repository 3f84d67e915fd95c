import math

import numpy as np
import pytest
import torch

from captum_alignment._core._statistics import describe, median_interval


@pytest.mark.parametrize("n", [1, 2, 5, 6, 31, 100])
def test_median_is_numpy_s(n):
    values = torch.randn(n)
    assert median_interval(values)[0] == pytest.approx(np.median(values.double().numpy()))


def test_interval_covers_the_true_median_as_often_as_it_says():
    for n in (10, 50, 201):
        covered = []
        for _ in range(1000):
            _, low, high = median_interval(torch.randn(n) ** 3)
            covered.append(low <= 0 <= high)
        assert 0.94 <= np.mean(covered) <= 0.995


def test_few_samples_have_no_interval():
    assert math.isnan(median_interval(torch.arange(5.0))[1])
    assert describe(torch.arange(5.0)).strip() == "2"


def test_infinite_and_missing_values():
    values = torch.tensor([1.0, 2.0, math.inf, math.inf, math.inf, math.nan, math.inf, 3.0])
    median, low, _ = median_interval(values)
    assert median == math.inf
    assert low == 1
    assert all(math.isnan(v) for v in median_interval(torch.tensor([math.nan])))
