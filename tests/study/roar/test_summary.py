import numpy as np
import pandas as pd
import pytest
from scipy import stats

from captum_alignment.study.page import mean_interval
from captum_alignment.study.roar import areas
from captum_alignment.study.roar._grid import UNMODIFIED
from captum_alignment.study.roar._summary import curves

ACCURACY = {
    (UNMODIFIED, UNMODIFIED): {0.0: 0.9},
    ("roar", "good"): {0.25: 0.5, 0.75: 0.1},
    ("roar", "random"): {0.25: 0.8, 0.75: 0.4},
    ("kar", "good"): {0.25: 0.7, 0.75: 0.9},
    ("kar", "random"): {0.25: 0.3, 0.75: 0.7},
}


def make_cells(seeds=(0,), spread=0.0) -> pd.DataFrame:
    """Cells of two methods on 100 images; accuracies rise by ``spread`` from seed to seed."""
    rows = [
        {"mode": mode, "method": method, "fraction": fraction, "seed": seed, "accuracy": accuracy + spread * seed}
        for seed in seeds
        for (mode, method), curve in ACCURACY.items()
        for fraction, accuracy in curve.items()
    ]
    cells = pd.DataFrame(rows)
    cells["correct"], cells["tested"] = (100 * cells["accuracy"]).round().astype(int), 100
    for split in ("train", "test"):
        cells[f"constant_{split}"] = np.where(cells["method"] == "good", 10, 0)
        cells[f"tied_{split}"] = np.where(cells["method"] == "good", 20, 0)
    return cells


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx((values.mean(), low, high))
    assert mean_interval([0.3])[0] == 0.3
    assert np.isnan(mean_interval([0.3])[1:]).all()


def test_the_area_is_the_mean_accuracy_along_the_curve_from_unmodified_images():
    found = areas(make_cells()).set_index(["mode", "method"])
    assert found.loc[("roar", "good"), "area"] == pytest.approx((0.25 * 0.7 + 0.5 * 0.3) / 0.75)
    assert found.loc[("kar", "good"), "area"] == pytest.approx((0.5 * 0.8 + 0.25 * 0.9) / 0.75)
    assert found.loc[("roar", "good"), "beyond_random"] == pytest.approx((0.25 * 0.15 + 0.5 * 0.3) / 0.75)
    assert (found.loc[[("roar", "good"), ("kar", "good")], "beyond_random"] > 0).all()
    assert found["area_low"].isna().all()
    assert found.loc[("roar", "good"), ["constant", "tied"]].tolist() == [0.1, 0.2]


def test_over_seeds_differences_are_paired():
    found = areas(make_cells((0, 1, 2), spread=0.01)).set_index(["mode", "method"])
    row = found.loc[("roar", "good")]
    assert row["area_low"] < row["area"] < row["area_high"]
    assert row["beyond_random_low"] == pytest.approx(row["beyond_random"])  # the seeds move both alike
    assert row["seeds"] == 3


def test_without_a_random_ranking_nothing_is_beyond_it():
    cells = make_cells()
    found = areas(cells.query("method != 'random'"))
    assert found["beyond_random"].isna().all()


def test_curves_of_one_seed_have_the_interval_of_their_test_images():
    one = curves(make_cells()).set_index(["mode", "method", "fraction"])
    interval = stats.binomtest(50, 100).proportion_ci(method="wilson")
    row = one.loc[("roar", "good", 0.25)]
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((interval.low, interval.high), abs=1e-6)
    several = curves(make_cells((0, 1, 2), spread=0.05))
    assert several["accuracy_high"].max() <= 1
    assert (several["seeds"] == 3).all()
