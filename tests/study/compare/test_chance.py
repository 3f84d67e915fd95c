"""What samples share through their maps, and the p-value of a run."""

import numpy as np
import pytest
import torch

from captum_alignment.metrics import alignment_null, alignment_null_of_maps, exchangeability_test, median_interval
from captum_alignment.study.compare import TIMES_CHANCE, shared_by_maps, summarise_runs
from tests.study.runs import changed, make_run


def test_the_p_value_is_that_of_the_permutation_test():
    """Of one group, by the columns that an evaluation writes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 4
    x = torch.rand(60, 12, generator=generator)
    maps = torch.randn(60, 12, generator=generator) + 3 * (x - x.mean(1, keepdim=True))
    test = exchangeability_test(x, maps, labels, permutations=20_000)
    run = changed(make_run(n=60), class_excess=test.excess.numpy(), class_variance=test.variance.numpy())
    (row,) = summarise_runs([run]).to_dict("records")
    assert row["class_p"] == pytest.approx(test.p_value, abs=0.01)
    assert row["class_p"] < 0.1
    assert row["class_n"] == 60


def test_without_enough_samples_or_any_difference_there_is_no_p_value():
    run = make_run(n=40)
    few = np.where(np.arange(40) < 19, 0.1, np.nan)
    for columns in ({"class_excess": few}, {"class_variance": np.zeros(40)}, {"class_variance": np.full(40, np.nan)}):
        (row,) = summarise_runs([changed(run, **columns)]).to_dict("records")
        assert np.isnan(row["class_p"])


def test_the_interval_of_the_chance_level_counts_the_maps():
    x, a = torch.rand(80, 9) + 0.5, torch.randn(80, 9) + torch.randn(80, 1)
    chance, of_maps = alignment_null(x, a), alignment_null_of_maps(x, a)
    run = changed(make_run(n=80), null=chance.null.numpy(), excess=chance.excess.numpy(), map_null=of_maps.numpy())
    (row,) = summarise_runs([run]).to_dict("records")
    shared = float(np.median(chance.null)) * (of_maps / of_maps.mean() - 1)
    for name, sign in (("null", 1), ("excess", -1)):
        _, low, high = median_interval(getattr(chance, name), sign * shared)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high), rel=1e-3)


def test_to_first_order_the_median_moves_by_the_mean_of_what_is_shared():
    """Maps that all score a percent more on images raise every chance level by a percent."""
    null, alignment = np.random.default_rng(0).uniform(1, 2, (3, 50)), np.full((3, 50), 4.0)
    of_maps = np.ones((3, 50))
    for name, values in (("null", null), ("excess", alignment - null), (TIMES_CHANCE, alignment / null)):
        shared = shared_by_maps(name, values, null, of_maps)
        assert shared is not None
        np.testing.assert_allclose(shared, 0)
    more = np.r_[np.full(25, 1.01), np.full(25, 0.99)] * np.ones((3, 1))
    shared = shared_by_maps("null", null, null, more)
    assert shared is not None
    np.testing.assert_allclose(shared[:, :25], 0.01 * np.median(null, axis=1, keepdims=True) * np.ones(25))
    assert shared_by_maps("rank", null, null, more) is None
