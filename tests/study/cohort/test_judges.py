import numpy as np
import pytest
from scipy.stats import t as student

from captum_alignment.study.cohort._judges import _within, more_linear_more_linked
from tests.study.runs import cohort_of, make_records


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.8, 1.25, "supported"),
        (0.1, 0.79, "contradicted"),
        (1.26, 2.0, "contradicted"),
        (0.7, 0.9, "not distinguishable"),
        (1.0, np.inf, "not distinguishable"),
        (np.nan, np.nan, "not distinguishable"),
    ],
)
def test_an_interval_within_its_limits(low, high, expected):
    assert _within(low, high, (0.8, 1.25)) == expected


def test_the_link_is_the_loop_over_trainings():
    records = make_records(n=30, seeds=(0, 1, 2), strengths=(0.0, 0.1, 1.0))
    records.loc[records["sample"] == 4, "deviation"] = np.nan
    status, evidence = more_linear_more_linked(cohort_of(records))
    slopes = []
    for _, training in records[records["sample"] != 4].groupby("training_seed"):
        models = [model for _, model in training.groupby("strength")]
        x = [-model["deviation"].median() for model in models]
        y = [model["alignment"].corr(model["distance"], "spearman") for model in models]
        slopes.append(np.polyfit(x, y, 1)[0])
    half = student.ppf(0.975, 2) * np.std(slopes, ddof=1) / np.sqrt(3)
    low, high = np.mean(slopes) - half, np.mean(slopes) + half
    assert f"against linearity is {np.mean(slopes):+.2f} ({low:+.2f} to {high:+.2f})" in evidence
    assert status == ("supported" if low > 0 else "not distinguishable")
    assert "29 of 30 samples" in evidence
