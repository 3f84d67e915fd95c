import numpy as np
import pandas as pd
import pytest
from scipy import stats

from captum_alignment.study.page import (
    bootstrap_medians,
    bootstrap_spearman,
    fieller,
    interval,
    median,
    resample,
    spearman,
    wilson,
)


def test_spearman_is_scipys_row_by_row_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (5, 40)), rng.normal(size=(5, 40))
    expected = [float(np.asarray(stats.spearmanr(u, v))[0]) for u, v in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)
    frame = pd.DataFrame({"a": a[0], "b": b[0]})
    assert float(spearman(a[0], b[0])) == pytest.approx(frame.corr("spearman").loc["a", "b"])


@pytest.mark.parametrize(
    ("b", "expected"), [([1, 2, 9], 1), ([3, 2, 1], -1), ([1, np.inf, 2], 0.5), ([2, 2, 2], np.nan)]
)
def test_spearman_of_analytic_cases(b, expected):
    assert float(spearman([1, 2, 3], b)) == pytest.approx(expected, nan_ok=True)


def test_bootstraps_are_the_loop_over_resamples():
    rng = np.random.default_rng(1)
    a, b, indices = rng.normal(size=(2, 3, 15)), rng.normal(size=(2, 3, 15)), resample(15, 7)
    assert indices.shape == (7, 15)
    medians = np.stack([np.median(a[..., row], axis=-1) for row in indices])
    correlations = np.stack([spearman(a[..., row], b[..., row]) for row in indices])
    np.testing.assert_array_equal(bootstrap_medians(a, indices), medians)
    np.testing.assert_array_equal(bootstrap_spearman(a, b, indices), correlations)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 1, 2], 2),
        ([4, 1, 2, 3], 2.5),
        ([np.nan, 5, 1], 3),
        ([np.nan, 5, np.inf, np.inf], np.inf),
        ([np.nan, np.nan], np.nan),
        ([-np.inf, np.inf], np.nan),
    ],
)
def test_medians_leave_out_what_is_missing(values, expected):
    np.testing.assert_equal(median([values, values]), [expected, expected])


def test_chunks_change_nothing(monkeypatch):
    a, indices = np.random.default_rng(2).normal(size=(3, 20)), resample(20, 11)
    whole = bootstrap_medians(a, indices)
    monkeypatch.setattr("captum_alignment.study.page._statistics._CHUNK", 1)
    np.testing.assert_array_equal(bootstrap_medians(a, indices), whole)


def test_resampling_is_reproducible():
    np.testing.assert_array_equal(resample(9, 4), resample(9, 4))
    assert (resample(9, 4, seed=1) != resample(9, 4)).any()


def test_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(3).exponential(size=200)
    low, high = interval(bootstrap_medians(values, resample(200)))
    reference = stats.bootstrap((values,), np.median, n_resamples=2000, method="percentile", rng=0)
    assert float(low) == pytest.approx(reference.confidence_interval.low, abs=0.04)
    assert float(high) == pytest.approx(reference.confidence_interval.high, abs=0.04)


def test_infinite_distances_leave_medians_right():
    values = np.r_[np.arange(1.0, 8.0), np.inf, np.inf]
    replicates = bootstrap_medians(values, resample(9))
    assert np.median(values) == 5
    low, high = interval(replicates)
    assert 1 <= low < high
    assert not np.isnan(replicates).any()
    assert interval(np.full(50, np.inf)) == (np.inf, np.inf)


def test_interval_covers_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits = 0
    for trial in range(200):
        low, high = interval(bootstrap_medians(rng.normal(size=40), resample(40, 400, seed=trial)))
        hits += low <= 0 <= high
    assert 0.9 <= hits / 200 <= 0.99


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (500, 100000)])
def test_wilson_is_scipys(k, n):
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(k, n), expected, rtol=1e-5, atol=1e-12)


def test_the_median_of_nothing_is_missing():
    assert np.isnan(median(np.empty((2, 0)))).tolist() == [True, True]


def test_wilson_of_no_trials_is_missing():
    assert np.isnan(wilson(0, 0)).all()


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_fieller_covers_the_rank_correlation_of_normal_samples(rho):
    rng = np.random.default_rng(0)
    n, trials = 40, 2000
    a = rng.normal(size=(trials, n))
    b = rho * a + np.sqrt(1 - rho**2) * rng.normal(size=(trials, n))
    low, high = fieller(spearman(a, b), n)
    true = 6 / np.pi * np.arcsin(rho / 2)
    assert 0.93 < ((low <= true) & (true <= high)).mean() < 0.97


def test_fieller_has_no_interval_where_its_variance_is_not_known():
    assert np.isnan(fieller([0.5, 1.0, -1.0, np.nan], [9, 100, 100, 100])).all()
    low, high = fieller(0.5, 10)
    assert -1 < low < 0.5 < high < 1
