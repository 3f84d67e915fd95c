import functools
from dataclasses import replace

import numpy as np
import pytest

from captum_alignment.study.cohort._claims import CLAIMS, Verdict, basis, corrected, verdicts
from tests.study import runs
from tests.study.runs import cohort_of

make_records = functools.partial(runs.make_records, seeds=(0, 1, 2))


def statuses(records) -> dict[str, str]:
    return {verdict.claim: verdict.status for verdict in verdicts(cohort_of(records))}


def test_a_cohort_made_to_agree_supports_the_paper():
    found = statuses(make_records(n=100))
    flattens = found.pop("The rise of alignment flattens at the robust end")
    assert set(found.values()) == {"supported"}
    assert flattens in ("supported", "contradicted", "not distinguishable")


def test_a_cohort_made_to_disagree_contradicts_it():
    records = make_records(n=100)
    records["alignment"] = 5 - records["alignment"]
    records["excess"] = records["alignment"] - 0.4
    records["linearized_robustness"] *= 3
    records["distance_ddn"] = 2 * records["distance_gradient"]
    found = statuses(records)
    assert found.pop("Regularization raises robustness") == "supported"
    assert found.pop("Sample by sample, linearized robustness and distance are highly correlated") == "supported"
    found.pop("The rise of alignment flattens at the robust end")
    assert set(found.values()) == {"contradicted"}


def test_noise_is_not_distinguishable():
    records = make_records(n=40)
    rng = np.random.default_rng(0)
    for name in ("distance", "alignment", "linearized_robustness"):
        records[name] = rng.uniform(1, 2, len(records))
    found = statuses(records)
    assert found["Alignment rises with robustness"] == "not distinguishable"
    assert found["Sample by sample, linearized robustness and alignment are correlated"] == "not distinguishable"


@pytest.mark.parametrize(("bend", "expected"), [(0.5, "supported"), (2.0, "contradicted")])
def test_flattening_is_the_curve_above_its_chord(bend, expected):
    records = make_records(n=100)
    records["alignment"] = records["distance"] ** bend
    assert statuses(records)["The rise of alignment flattens at the robust end"] == expected


LINK = "The link of alignment and robustness is stronger in more linear models"


@pytest.mark.parametrize(
    ("reversed_seeds", "expected"),
    [((), "supported"), ((0, 1, 2), "contradicted"), ((1,), "not distinguishable")],
)
def test_the_link_is_compared_with_linearity(reversed_seeds, expected):
    """Records whose link grows with linearity; linearity reversed; and in one training of three."""
    records = make_records(n=100)
    turned = records["training_seed"].isin(reversed_seeds)
    records.loc[turned, "deviation"] = 1 - records["deviation"]
    verdict = next(v for v in verdicts(cohort_of(records)) if v.claim == LINK)
    assert verdict.status == expected
    assert "Over 4 models of each training seed" in verdict.evidence
    assert "100 of 100 samples" in verdict.evidence


def test_the_link_uses_the_samples_that_are_finite_in_all_usable_models():
    records = make_records(n=50, accuracy=(1, 1, 1, 0.1))
    records.loc[(records["strength"] == 0.1) & (records["sample"] < 7), "deviation"] = np.nan
    records.loc[(records["strength"] == 1.0) & (records["sample"] == 9), "distance"] = np.inf
    records.loc[records["strength"] == 10.0, "deviation"] = np.nan
    verdict = next(v for v in verdicts(cohort_of(records)) if v.claim == LINK)
    assert "42 of 50 samples" in verdict.evidence
    records.loc[records["sample"] > 1, "deviation"] = np.nan
    assert statuses(records)[LINK] == "not testable"


def test_a_collapsed_model_takes_no_part():
    """The collapsed model is by far the most robust one, and the least aligned: it would turn every verdict."""
    accuracy = (1.0, 1.0, 1.0, 0.2)
    records = make_records(n=100, accuracy=accuracy)
    collapsed = records["strength"] == 10.0
    records.loc[collapsed, ["distance", "linearized_robustness", "distance_gradient"]] = np.inf
    records.loc[collapsed, ["alignment", "excess"]] = 0.0
    without = make_records(n=100, accuracy=accuracy)
    without = without.query("strength < 10")
    assert [str(v) for v in verdicts(cohort_of(records))] == [str(v) for v in verdicts(cohort_of(without))]


def test_too_few_models_test_nothing_about_the_cohort():
    found = statuses(make_records(strengths=(0.0,)))
    assert found["Alignment rises with robustness"] == "not testable"
    assert found["The saliency maps of the most robust model fit their own image better"] == "not testable"
    assert found["Sample by sample, linearized robustness and alignment are correlated"] == "supported"


def test_without_the_gradient_attack_nothing_is_compared_with_it():
    records = make_records().drop(columns="distance_gradient")
    assert statuses(records)["Elaborate attacks find smaller distances than the gradient attack"] == "not testable"


def test_attacks_that_disagree_leave_it_open():
    records = make_records()
    records["distance_deepfool"] = 2 * records["distance_gradient"]
    claim = "Elaborate attacks find smaller distances than the gradient attack"
    verdict = next(v for v in verdicts(cohort_of(records)) if v.claim == claim)
    assert verdict.status == "not distinguishable"
    assert "disagree" in verdict.evidence


def test_failed_attacks_count_as_far_and_equal_to_each_other():
    records = make_records(n=100)
    records.loc[records["sample"] < 80, "distance_gradient"] = np.inf
    records.loc[records["sample"] < 20, ["distance_ddn", "distance"]] = np.inf
    verdict = next(v for v in verdicts(cohort_of(records)) if v.claim.startswith("Elaborate"))
    assert verdict.status == "supported"
    assert "ddn 0.000" in verdict.evidence
    correlation = next(v for v in verdicts(cohort_of(records)) if v.claim.endswith("highly correlated"))
    assert "80 of 100 samples are finite" in correlation.evidence


@pytest.mark.parametrize(("seeds", "said"), [((0,), "one training seed"), ((0, 1, 2), "3 training seeds")])
def test_the_basis_names_samples_models_and_seeds(seeds, said):
    text = basis([cohort_of(make_records(seeds=seeds))])
    assert f"60 common samples of {4 * len(seeds)} usable models" in text
    assert said in text


def test_one_training_seed_tests_nothing_that_compares_trainings():
    found = verdicts(cohort_of(make_records(seeds=(0,))))
    compared = [v for v in found if "--seeds 3" in v.evidence]
    assert len(compared) == sum(claim.needs > 1 for claim in CLAIMS)
    assert {v.status for v in compared} == {"not testable"}
    assert {v.status for v in found if v not in compared} == {"supported"}


def test_decided_verdicts_stay_so_only_after_holms_correction():
    one = Verdict("a", "Fig. 1", "supported", "It is 1.", "pgd-l2", 0.01)
    none = replace(one, status="not testable", p=None)
    found = corrected([one, replace(one, p=0.04), replace(one, p=0.5, status="not distinguishable"), none])
    assert [verdict.status for verdict in found] == ["supported", *["not distinguishable"] * 2, "not testable"]
    assert "p = 0.04 alone would be supported, but not among 4 trainings (Holm’s 0.08)" in found[1].evidence
    other = replace(one, claim="b", p=0.04)
    assert corrected([one, other]) == [one, other]


def test_a_strength_is_left_out_with_any_of_its_models():
    records = make_records(strengths=(0.0,), seeds=(0, 1))
    records.loc[(records["training_seed"] == 1) & (records["sample"] > 10), "prediction"] = 1
    assert {verdict.status for verdict in verdicts(cohort_of(records))} == {"not testable"}


def test_infinite_medians_leave_the_verdicts_standing():
    records = make_records(n=100)
    records.loc[records["strength"] == 10.0, ["distance", "distance_ddn", "distance_gradient"]] = np.inf
    found = statuses(records)
    assert found["Regularization raises robustness"] == "supported"
    assert found["The rise of alignment flattens at the robust end"] == "not distinguishable"
    assert found["Sample by sample, linearized robustness and distance are highly correlated"] == "not testable"
