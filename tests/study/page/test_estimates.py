import numpy as np
import pytest
from scipy import stats

from captum_alignment.study.page import Estimate, holm, over_trainings, over_trainings_and_samples


def test_over_trainings_is_scipys_t_test():
    values = np.array([0.3, 0.9, 0.4, 1.1])
    found, expected = over_trainings(values), stats.ttest_1samp(values, 0.2)
    assert found.p_value(0.2) == pytest.approx(float(np.asarray(expected)[1]))
    assert found.bounds == pytest.approx(tuple(expected.confidence_interval()))


def test_one_training_has_no_error():
    assert np.isnan(over_trainings([2.0]).error)
    assert np.isnan(over_trainings([2.0]).p_value())
    assert np.isnan(over_trainings([np.inf, 2.0]).p_value())


def test_variances_of_trainings_and_samples_add_up():
    rng = np.random.default_rng(0)
    values = np.array([1.0, 1.2, 1.4])
    replicates = values + rng.normal(0, 0.3, (20_000, 1))
    found = over_trainings_and_samples(values, replicates, 50)
    assert found.error**2 == pytest.approx(0.09 + 0.04 / 3, rel=0.03)
    assert found.freedom == pytest.approx(found.error**4 / (0.09**2 / 49 + (0.04 / 3) ** 2 / 2), rel=0.05)
    alone = over_trainings_and_samples(values[:1], replicates[:, :1], 50)
    assert (alone.error, alone.freedom) == (pytest.approx(0.3, rel=0.03), pytest.approx(49))


def test_a_bound_that_is_reached_by_an_infinite_replicate_leaves_it_open():
    replicates = np.where(np.arange(100)[:, None] < 10, np.inf, 1.0)
    assert over_trainings_and_samples([1.0], replicates, 30).p_value() == 1
    few = np.where(np.arange(1000)[:, None] < 10, np.inf, 1 + np.arange(1000)[:, None] / 1000)
    assert np.isfinite(over_trainings_and_samples([1.0], few, 30).error)


def test_an_estimate_at_its_bound_has_the_level_as_its_p():
    found = Estimate(1.0, 0.2, 7.0)
    assert found.p_value(found.bounds[0]) == pytest.approx(0.05)


def test_holm_is_the_step_down_procedure():
    p = [0.01, np.nan, 0.04, 0.03]
    np.testing.assert_allclose(holm(p), [0.03, np.nan, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
