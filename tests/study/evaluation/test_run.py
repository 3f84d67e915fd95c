import numpy as np
import pytest

from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import class_name
from tests.study.runs import changed, frame, make_run, with_errors


def test_rows_with_an_error_are_apart_from_the_measured_ones():
    run = with_errors(make_run(n=6), [True, False, False, True, False, False])
    assert run.errors["sample"].tolist() == [0, 3]
    assert run.measured == len(run.values("distance")) == len(run.correct) == 4
    assert run.values("sample").tolist() == [1, 2, 4, 5]
    assert run.rows(np.array([True, True] + [False] * 4), ("sample",)).to_dict("list") == {"sample": [0, 1]}
    assert run.labelled.all()


def test_a_manifest_and_records_may_lack_everything():
    run = make_run(n=3)
    bare = Run("bare", {}, frame(run).loc[:, ["sample", "distance"]], {})
    assert (bare.config, bare.norm, bare.classes, bare.attacks) == ({}, "", None, [])
    assert not bare.labelled.any()
    assert not bare.correct.any()
    assert np.isnan(bare.values("alignment")).all()
    assert len(bare.errors) == 0
    assert Run("odd", {"config": [1]}, run.records, {}).config == {}


@pytest.mark.parametrize(("norm", "sign"), [(2.0, "l₂"), (1, "l₁"), (float("inf"), "l∞"), ("inf", "l∞"), (3, "3")])
def test_the_norm_has_its_sign(norm, sign):
    assert make_run(n=3, norm=norm).norm == sign


def test_only_attacks_that_ran_on_every_measured_sample_are_comparable():
    run = make_run(n=6)
    assert run.attacks == ["ddn", "gradient"]
    assert changed(run, distance_ddn=[np.nan, *[1.0] * 5]).attacks == ["gradient"]
    assert with_errors(run, [True] + [False] * 5).attacks == ["ddn", "gradient"]


def test_names_of_classes():
    assert [class_name(["cat", "dog"], index) for index in (0, 1, 2, -1, np.nan, None)] == [
        "cat",
        "dog",
        "2",
        "-1",
        "–",
        "–",
    ]
    assert class_name(None, 7.0) == "7"
