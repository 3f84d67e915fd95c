import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, spearmanr
from scipy.stats import t as student

from captum_alignment.study.compare import CORRELATIONS, QUANTITIES
from captum_alignment.study.compare._summary import (
    by_class,
    robust_accuracy,
    robust_accuracy_over_seeds,
    summarise_runs,
    times_chance,
)
from tests.study.runs import changed, frame, make_run, with_errors


def test_every_number_is_that_of_the_measured_rows():
    run = with_errors(make_run(n=80), np.arange(80) % 7 == 3)
    rows = run.records[run.records["error"].isna()]
    (row,) = summarise_runs([run]).to_dict("records")
    assert (row["run"], row["n"], row["errors"]) == ("mlp", len(rows), 80 - len(rows))
    assert row["accuracy"] == pytest.approx((rows["label"] == rows["prediction"]).mean())
    assert row["found"] == pytest.approx(np.isfinite(rows["distance"]).mean())
    larger = np.abs(rows["direction_gap"]) > np.abs(rows["bias_gap"])
    assert row["direction_larger"] == pytest.approx(larger.mean())
    for name in (*QUANTITIES, "distance_ddn", "distance_gradient"):
        assert row[name] == pytest.approx(np.median(rows[name]))
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    for name, (a, b) in CORRELATIONS.items():
        pair = rows[np.isfinite(rows[a]) & np.isfinite(rows[b])]
        assert row[f"spearman_{name}"] == pytest.approx(spearmanr(pair[a], pair[b])[0])
        assert row[f"spearman_{name}_n"] == len(pair)
        assert row[f"spearman_{name}_low"] < row[f"spearman_{name}"] < row[f"spearman_{name}_high"]


def test_the_interval_of_a_share_is_wilsons():
    run = make_run(n=50)
    (row,) = summarise_runs([run]).to_dict("records")
    expected = binomtest(int(run.correct.sum()), 50).proportion_ci(method="wilson")
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(tuple(expected), rel=1e-5)


def test_a_median_beyond_every_distance_is_infinite():
    run = changed(make_run(n=20), distance=np.where(np.arange(20) < 12, np.inf, 1.0))
    (row,) = summarise_runs([run]).to_dict("records")
    assert row["distance"] == row["distance_high"] == np.inf
    assert row["found"] == pytest.approx(0.4)


def test_what_is_not_there_is_missing_and_not_a_number():
    failed = with_errors(make_run(n=5), np.ones(5, dtype=bool))
    unlabelled = changed(make_run(n=5), label=pd.array([pd.NA] * 5, dtype="Int64"))
    one = make_run(n=1)
    rows = summarise_runs([failed, unlabelled, one]).to_dict("records")
    assert (rows[0]["n"], rows[0]["errors"]) == (0, 5)
    assert all(np.isnan(rows[0][name]) for name in (*QUANTITIES, "accuracy", "found", "direction_larger"))
    assert np.isnan(rows[1]["accuracy"])
    assert np.isfinite(rows[1]["distance"])
    assert rows[2]["distance"] == one.values("distance")[0]
    assert np.isnan([rows[2]["distance_low"], rows[2]["spearman_linearized_distance"]]).all()
    assert [row["spearman_linearized_alignment_n"] for row in rows] == [0, 5, 1]


def test_robust_accuracy_is_the_count_of_right_and_distant_samples():
    run = make_run(n=60)
    eps = np.array([0.0, 0.5, 1.0, float(run.values("distance")[0]), 5.0])
    curve = robust_accuracy(run, eps)
    for e, share in zip(eps, curve["share"], strict=True):
        rows = frame(run).to_dict("records")
        hits = [row["label"] == row["prediction"] and e < row["distance"] < np.inf for row in rows]
        assert share == pytest.approx(np.mean(hits))
    assert (curve["low"] <= curve["share"]).all()
    assert (curve["high"] >= curve["share"]).all()
    assert np.isinf(run.values("distance")).any()  # no answer is not robustness


def test_robust_accuracy_without_labels_counts_every_sample():
    run = changed(make_run(n=30), label=pd.array([pd.NA] * 30, dtype="Int64"))
    curve = robust_accuracy(run, np.array([0.0, 1.0]))
    answered = run.values("distance")[np.isfinite(run.values("distance"))]
    assert curve["share"].tolist() == pytest.approx([len(answered) / 30, (answered > 1).sum() / 30])
    half = changed(run, label=run.records["prediction"].where(run.records["sample"] < 10))
    expected = ((distance := run.values("distance")[:10]) > 1)[np.isfinite(distance)].sum() / 10
    assert robust_accuracy(half, np.array([1.0]))["share"].tolist() == pytest.approx([expected])


def test_runs_that_differ_in_the_seed_are_averaged_with_students_t():
    runs, eps = [make_run(n=50, seed=seed) for seed in range(3)], np.array([0.0, 0.7, 9.0])
    found = robust_accuracy_over_seeds(runs, eps)
    shares = np.array([robust_accuracy(run, eps)["share"] for run in runs])
    np.testing.assert_allclose(found["share"], shares.mean(axis=0))
    half = student.ppf(0.975, 2) * shares.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found["high"], np.minimum(shares.mean(axis=0) + half, 1))
    pd.testing.assert_frame_equal(robust_accuracy_over_seeds(runs[:1], eps), robust_accuracy(runs[0], eps))


def test_usable_is_nearly_as_accurate_as_the_best_on_the_same_data():
    def of(name, share, dataset):
        run = make_run(name, n=20, dataset=dataset)
        return changed(run, label=run.records["prediction"].where(run.records["sample"] < 20 * share, 99))

    unlabelled = changed(make_run(n=20, dataset="a"), label=pd.array([pd.NA] * 20, dtype="Int64"))
    runs = [of("x", 1.0, "a"), of("y", 0.85, "a"), of("z", 0.95, "a"), of("v", 0.3, "b"), unlabelled]
    assert summarise_runs(runs)["usable"].tolist() == [True, False, True, True, True]


def test_runs_of_a_study_have_coordinates_and_others_have_none():
    run = make_run("a", training="pgd-l2", strength=0.5, training_seed=3)
    summary = summarise_runs([run, make_run("b", training="odd", strength="strong")])
    assert summary.loc[0, ["training", "strength", "training_seed"]].tolist() == ["pgd-l2", 0.5, 3]
    assert summary["training"].tolist() == ["pgd-l2", ""]
    assert summary.loc[1, ["strength", "training_seed"]].isna().all()
    assert "training" not in summarise_runs([make_run()])


def test_a_model_without_gradient_is_no_better_than_chance():
    run = changed(make_run(n=4), alignment=[0.0, 0.0, 1.0, 3.0], null=[0.0, 2.0, 2.0, 0.0])
    assert times_chance(run).tolist() == [1.0, 0.0, 0.5, np.inf]


def test_robust_accuracy_of_nothing_is_missing():
    failed = with_errors(make_run(n=5), np.ones(5, dtype=bool))
    assert robust_accuracy(failed, np.array([0.0, 1.0]))[["share", "low", "high"]].isna().to_numpy().all()


def test_classes_are_those_of_the_labels():
    run = make_run(n=90, classes=["cat", "dog", "=1+1"])
    run = changed(run, label=run.records["label"].where(run.records["sample"] != 4))
    table = by_class(run).set_index("class")
    assert table["name"].tolist() == ["cat", "dog", "=1+1"]
    for label, rows in frame(run).groupby("label"):
        row = table.loc[label]
        assert row["n"] == len(rows)
        assert row["accuracy"] == pytest.approx((rows["prediction"] == label).mean())
        for name in ("distance", "linearized_robustness", "alignment"):
            assert row[name] == pytest.approx(np.median(rows[name]))


def test_without_labels_classes_are_those_of_the_predictions():
    run = changed(make_run(n=30), label=pd.array([pd.NA] * 30, dtype="Int64"))
    table = by_class(run)
    assert table["n"].tolist() == run.records["prediction"].value_counts().sort_index().tolist()
    assert table["accuracy"].isna().all()


def test_a_thousand_classes_and_none():
    run = make_run(n=5000, count=1000)
    table = by_class(run)
    assert len(table) == run.records["label"].nunique() > 900
    assert table["n"].sum() == 5000
    assert len(by_class(with_errors(run, np.ones(5000, dtype=bool)))) == 0
