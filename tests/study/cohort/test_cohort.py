import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.cohort._cohort import make_cohorts
from captum_alignment.study.page import bootstrap_medians
from tests.study.runs import changed, cohort_of, make_records, runs_of


def test_medians_are_those_of_the_records():
    records = make_records(seeds=(0, 1))
    cohort = cohort_of(records)
    expected = records.groupby(["strength", "training_seed"])["distance"].median().to_numpy().reshape(4, 2)
    np.testing.assert_allclose(cohort.medians["distance"], expected)
    np.testing.assert_allclose(cohort.medians["times_chance"], cohort.medians["alignment"] / 0.4)
    assert cohort.attacks == ("gradient", "ddn")
    assert (cohort.training, cohort.symbol, cohort.n) == ("lipschitz", "λ", 60)


def test_the_bootstrap_is_paired():
    """Two models that differ by a constant differ by it in every replicate."""
    records = make_records(strengths=(0.0, 1.0))
    first = records[records["strength"] == 0.0]
    records.loc[records["strength"] == 1.0, "distance"] = np.asarray(first["distance"]) + 0.1
    cohort = cohort_of(records)
    replicates = bootstrap_medians(cohort.values["distance"], cohort.indices)[..., 0]
    np.testing.assert_allclose(replicates[:, 1] - replicates[:, 0], 0.1)


def test_a_level_is_the_mean_over_seeds_within_its_interval():
    cohort = cohort_of(make_records(seeds=(0, 1, 2)))
    for name in ("alignment", "excess"):
        middle, low, high = cohort.level(name)
        np.testing.assert_allclose(middle, cohort.medians[name].mean(axis=1))
        assert (low < middle).all()
        assert (middle < high).all()


def test_a_collapsed_network_is_not_usable_beside_the_best_of_the_study():
    assert cohort_of(make_records(accuracy=(1.0, 0.95, 0.9, 0.5))).usable.tolist() == [True, True, True, False]
    weak = make_records(strengths=(0.3,), accuracy=(0.5,))
    assert cohort_of(weak).usable.tolist() == [True]
    strong = make_records(strengths=(0.5,), training="pgd-l2")
    both = make_cohorts(runs_of(pd.concat([weak, strong])), ["lipschitz", "pgd-l2"])
    assert [cohort.usable.tolist() for cohort in both] == [[False], [True]]


def test_the_plain_network_is_in_the_cohort_of_every_training():
    records = pd.concat([make_records(), make_records(strengths=(0.5,), training="pgd-l2")])
    cohorts = make_cohorts(runs_of(records), ["lipschitz", "pgd-l2"])
    assert [cohort.strengths.tolist() for cohort in cohorts] == [[0, 0.1, 1, 10], [0, 0.5]]
    np.testing.assert_array_equal(cohorts[0].values["distance"][0], cohorts[1].values["distance"][0])


def test_an_attack_that_did_not_run_everywhere_has_no_median():
    records = make_records()
    records.loc[3, "distance_ddn"] = np.nan
    assert cohort_of(records).attacks == ("gradient",)


def test_the_samples_are_those_that_all_networks_were_measured_on():
    runs = runs_of(make_records(strengths=(0.0, 1.0), n=9))
    failed = changed(runs[1], error=[*["no scores"] * 2, *[None] * 7], distance=[*[np.nan] * 2, *[1.0] * 7])
    (cohort,) = make_cohorts([runs[0], failed], ["lipschitz"])
    assert cohort.n == 7
    np.testing.assert_array_equal(cohort.values["distance"][0, 0], runs[0].values("distance")[2:])


def test_networks_on_different_samples_are_refused():
    with pytest.raises(ValueError, match="different samples"):
        cohort_of(make_records().iloc[1:])
