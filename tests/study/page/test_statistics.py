import numpy as np
import pandas as pd
import pytest
from scipy import stats

from captum_alignment.study.page import (
    bootstrap_medians,
    bootstrap_spearman,
    interval,
    median,
    resample,
    spearman,
    spearman_interval,
    wilson,
)
from captum_alignment.study.page._statistics import _freedom


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


def normal_pairs(rng, n, rho):
    a = rng.normal(size=n)
    return a, rho * a + np.sqrt(1 - rho**2) * rng.normal(size=n)


def common_scale(rng, n, rho):
    """Heavy tails that both share: Student's t with two degrees of freedom."""
    scale = np.sqrt(rng.chisquare(2, size=n))
    return tuple(values / scale for values in normal_pairs(rng, n, rho))


def uneven_noise(rng, n, rho):
    a = rng.normal(size=n)
    return a, rho * a + np.sqrt(1 - rho**2) * np.abs(a) * rng.normal(size=n)


@pytest.mark.parametrize("draw", [normal_pairs, common_scale, uneven_noise])
@pytest.mark.parametrize(("rho", "n"), [(0.0, 40), (0.6, 100), (0.9, 100), (0.9, 400), (0.5, 14)])
def test_the_interval_of_a_rank_correlation_covers_what_it_says(draw, rho, n):
    rng = np.random.default_rng(0)
    true = float(spearman(*draw(rng, 400_000, rho)))
    found = np.array([spearman_interval(*draw(rng, n, rho)) for _ in range(800)])
    covered = ((found[:, 0] <= true) & (true <= found[:, 1])).mean()
    assert 0.92 < covered < (0.975 if n > 30 else 0.99)  # 95 % within 3.9 standard errors of 800 trials


def test_its_variance_is_the_jackknife_s():
    """The influence function is what leaving one sample out does, n times over."""
    rng = np.random.default_rng(0)
    for a, b in (uneven_noise(rng, 600, 0.7), (rng.integers(0, 5, 600), rng.integers(0, 5, 600))):
        r = float(spearman(a, b))
        left_out = np.array([float(spearman(np.delete(a, i), np.delete(b, i))) for i in range(600)])
        error = np.sqrt((599 / 600) * ((left_out - left_out.mean()) ** 2).sum())
        low, high = spearman_interval(a, b)
        half = (np.arctanh(high) - np.arctanh(low)) / 2
        # A little more, because few samples weigh much: Student's t has fewer degrees of freedom.
        assert 0.99 < half / (stats.t.ppf(0.975, 598) * error / (1 - r * r)) < 1.04


def test_where_few_samples_weigh_much_the_interval_knows_its_variance_less():
    """Of the same variance of influence the heavier tails have the wider interval: Student's t of fewer degrees."""
    rng = np.random.default_rng(0)
    freedom = {
        draw: np.mean([_freedom(draw(rng, 200, 0.9)[0]) for _ in range(50)]) for draw in (normal_pairs, common_scale)
    }
    assert freedom[common_scale] < 0.5 * freedom[normal_pairs] <= 99
    assert _freedom(np.full(20, 3.0)) == 18


def test_no_interval_of_few_pairs_or_of_a_perfect_correlation():
    few = np.arange(9.0), np.array([2, 1, 3, 5, 4, 6, 8, 7, 9.0])
    line = np.arange(20.0)
    for a, b in (few, (line, line), (line, -line), (line, 0 * line)):
        assert np.isnan(spearman_interval(a, b)).all()
