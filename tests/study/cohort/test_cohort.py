import numpy as np
import pytest
from scipy.stats import spearmanr

from captum_alignment.study.cohort._cohort import cohort_of, summarise
from tests.study.conftest import make_records


def test_medians_are_those_of_the_records():
    records = make_records(seeds=(0, 1))
    cohort = cohort_of(records.sample(frac=1, random_state=0))
    expected = records.groupby(["strength", "training_seed"])["distance"].median().to_numpy().reshape(4, 2)
    np.testing.assert_allclose(cohort.medians["distance"], expected)
    np.testing.assert_allclose(cohort.medians["times_chance"], cohort.medians["alignment"] / 0.4)
    assert cohort.replicates["distance"].shape == (2000, 4, 2)
    assert cohort.attacks == ("gradient", "ddn")


def test_the_bootstrap_is_paired():
    """Two models that differ by a constant differ by it in every replicate."""
    records = make_records(strengths=(0.0, 1.0))
    first = records[records["strength"] == 0.0]
    records.loc[records["strength"] == 1.0, "distance"] = np.asarray(first["distance"]) + 0.1
    replicates = cohort_of(records).replicates["distance"][..., 0]
    np.testing.assert_allclose(replicates[:, 1] - replicates[:, 0], 0.1)


def test_seeds_are_averaged_and_resampled():
    cohort = cohort_of(make_records(seeds=(0, 1, 2)))
    value, replicates = cohort.levels("alignment")
    np.testing.assert_allclose(value, cohort.medians["alignment"].mean(axis=1))
    drawn = cohort.replicates["alignment"][5, 2, cohort.seed_indices[5]].mean()
    assert replicates[5, 2] == pytest.approx(drawn)


def test_a_collapsed_model_is_not_usable():
    cohort = cohort_of(make_records(accuracy=(1.0, 0.95, 0.9, 0.5)))
    assert cohort.usable.tolist() == [True, True, True, False]
    assert len(cohort.levels("distance")[0]) == 3


def test_infinite_distances():
    records = make_records()
    records.loc[records["sample"] < 10, ["distance", "distance_ddn"]] = np.inf
    row = summarise(cohort_of(records)).iloc[0]
    finite = records[(records["strength"] == 0) & (records["sample"] >= 10)]
    assert row["found"] == pytest.approx(50 / 60)
    assert np.isfinite(row["distance"])
    assert row["spearman_linearized_distance_n"] == 50
    assert row["spearman_linearized_distance"] == pytest.approx(
        spearmanr(finite["linearized_robustness"], finite["distance"])[0]
    )


def test_too_few_finite_pairs_give_no_correlation():
    records = make_records()
    records.loc[(records["strength"] == 1.0) & (records["sample"] > 1), "distance"] = np.inf
    row = summarise(cohort_of(records)).set_index("strength").loc[1.0]
    assert np.isnan(row["spearman_linearized_distance"])
    assert row["spearman_linearized_distance_n"] == 2
    assert row["distance"] == np.inf


def test_an_attack_that_did_not_run_everywhere_has_no_median():
    records = make_records()
    records.loc[3, "distance_ddn"] = np.nan
    assert cohort_of(records).attacks == ("gradient",)


def test_the_larger_gap_is_counted_where_both_are_finite():
    records = make_records(strengths=(0.0,), n=10)
    records["direction_gap"] = -1.0
    records["bias_gap"] = [2.0, -2.0, 0.5, -0.5, 0.0, 1.0, np.inf, np.inf, -np.inf, 3.0]
    row = summarise(cohort_of(records)).iloc[0]
    assert (row["direction_larger"], row["bias_larger"]) == (3, 3)


def test_what_is_unknown_on_some_samples_has_the_median_of_the_others():
    records = make_records(n=11)
    records.loc[records["sample"] < 4, "deviation"] = np.nan
    records.loc[records["strength"] == 10.0, "deviation"] = np.nan
    summary = summarise(cohort_of(records))
    np.testing.assert_allclose(summary["deviation"], records.groupby("strength")["deviation"].median())
    assert summary["deviation_low"].isna().tolist() == [False, False, False, True]


def test_terms_and_profiles_stay_out_of_the_summary():
    cohort = cohort_of(make_records())
    assert len(cohort.details) == 3 + 1 + 4
    assert not set(cohort.details) & set(summarise(cohort))


def test_models_on_different_samples_are_refused():
    with pytest.raises(ValueError, match="different samples"):
        cohort_of(make_records().iloc[1:])
