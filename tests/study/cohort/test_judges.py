import numpy as np
import pytest
from scipy.stats import t as student

from captum_alignment.study.cohort._claims import _status
from captum_alignment.study.cohort._judges import (
    correlated,
    linearized_is_close,
    more_linear_more_linked,
    nearer_than_gradient,
    too_few,
)
from tests.study.runs import cohort_of, make_records


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1.0, "supported"), (0.6, "contradicted"), (1.6, "contradicted"), (1.25, "not distinguishable"), (np.inf, "")],
)
def test_close_is_far_from_both_limits_and_not_close_from_the_nearer_one(ratio, expected):
    records = make_records(seeds=(0, 1, 2))
    noise = np.random.default_rng(0).normal(0, 0.05, len(records))
    records["linearized_robustness"] = ratio * records["distance"] * np.exp(noise)
    judgement = linearized_is_close(cohort_of(records))
    assert _status(judgement) == (expected or "not distinguishable")


def test_with_too_few_samples_nothing_can_be_decided():
    few = cohort_of(make_records(n=4, seeds=(0, 1, 2)))
    judges = (
        linearized_is_close,
        nearer_than_gradient,
        correlated("linearized_alignment", "", 0),
        more_linear_more_linked,
    )
    assert [_status(judge(few)) for judge in judges] == ["not testable"] * 4


def test_the_link_is_the_loop_over_trainings():
    records = make_records(n=30, seeds=(0, 1, 2), strengths=(0.0, 0.1, 1.0))
    records.loc[records["sample"] == 4, "deviation"] = np.nan
    judgement = more_linear_more_linked(cohort_of(records))
    slopes = []
    for _, training in records[records["sample"] != 4].groupby("training_seed"):
        models = [model for _, model in training.groupby("strength")]
        x = [-model["deviation"].median() for model in models]  # pyright: ignore
        y = [model["alignment"].corr(model["distance"], "spearman") for model in models]  # pyright: ignore
        slopes.append(np.polyfit(x, y, 1)[0])
    half = student.ppf(0.975, 2) * np.std(slopes, ddof=1) / np.sqrt(3)
    low, high = np.mean(slopes) - half, np.mean(slopes) + half
    assert f"against linearity is {np.mean(slopes):+.2f} ({low:+.2f} to {high:+.2f})" in judgement.evidence
    assert _status(judgement) == ("supported" if low > 0 else "not distinguishable")
    assert "29 of 30 samples" in judgement.evidence


def test_what_is_too_few_is_said_in_the_right_number():
    assert too_few(3, "usable strength", 1).evidence == "It needs at least 3 usable strengths, and there is 1."
    assert too_few(1, "usable strength", 0).evidence == "It needs at least 1 usable strength, and there are none."
    assert (
        too_few(5, "sample", 2, " finite in all").evidence
        == "It needs at least 5 samples finite in all, and there are 2."
    )
    assert too_few(1, "sample", 0).p is None
