import pytest

from captum_alignment.study.compare import EVALUATIONS, coordinates, runs_in
from captum_alignment.study.compare import _coordinates as module
from tests.study.runs import make_run

RUNS = {
    "b_1": {"training": "b", "strength": 1.0, "training_seed": 0},
    "b_0.5": {"training": "b", "strength": 0.5, "training_seed": 1},
    "b_0.50": {"training": "b", "strength": 0.5, "training_seed": 0},
    "a": {"training": "a", "strength": 10.0, "training_seed": 0},
    "plain": {"training": "standard", "strength": 0.0, "training_seed": 0},
    "other": {},
}


def test_a_run_of_no_study_has_no_coordinates():
    assert coordinates(make_run(**RUNS["b_1"])) == RUNS["b_1"]
    assert coordinates(make_run()) == coordinates(make_run(training="mine")) == {}
    assert coordinates(make_run(training="mine", strength="strong", training_seed=0)) == {}


def test_the_runs_of_a_study_come_in_their_order(tmp_path, monkeypatch):
    for name in RUNS:
        (tmp_path / EVALUATIONS / name).mkdir(parents=True)
    (tmp_path / EVALUATIONS / "note.txt").touch()
    monkeypatch.setattr(module, "read_run", lambda folder: make_run(folder.name, **RUNS[folder.name]))
    assert [run.name for run in runs_in(tmp_path)] == ["other", "plain", "a", "b_0.50", "b_0.5", "b_1"]


def test_a_study_without_evaluations_says_how_it_goes_on(tmp_path):
    (tmp_path / EVALUATIONS).mkdir()
    with pytest.raises(ValueError, match="without a finished evaluation; the same command continues"):
        runs_in(tmp_path)
