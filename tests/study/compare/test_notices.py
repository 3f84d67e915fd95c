from typing import Any

import numpy as np
import pytest

from captum_alignment.study.compare._notices import facts, notices, settings, show, versions
from captum_alignment.study.compare._summary import summarise_runs
from captum_alignment.study.evaluation import Run
from tests.study.runs import changed, make_run, with_errors


def said(*runs) -> str:
    return "\n".join(notices(runs, summarise_runs(runs)))


def test_runs_of_one_kind_need_no_notice():
    assert said(make_run("a"), make_run("b", seed=1)) == said(make_run("a")) == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"norm": "inf"},
            "norms, so that ρ, ρ̃ and α of different runs are not comparable (l₂ in a; l∞ in b)",
        ),
        (
            {"dataset": "mnist"},
            "data sets differ, so that ρ, ρ̃ and α of different runs are not comparable (digits in",
        ),
        ({"attacks": ["fast"]}, "attacks differ, so that distances are not comparable"),
    ],
)
def test_what_makes_distances_incomparable_is_said(config, words):
    assert words in said(make_run("a"), make_run("b", **config))
    assert said(make_run("a"), make_run("b", **config)).count("\n") == 0


def test_the_same_norm_may_be_written_in_two_ways():
    assert said(make_run("a", norm=np.inf), make_run("b", norm="inf")) == ""


def test_other_samples_are_said():
    assert "do not hold the same samples" in said(make_run("a", n=20), make_run("b", n=30))
    run = make_run("b", n=20)
    assert "do not hold" in said(make_run("a", n=20), changed(run, id=run.records["id"] + "x"))


def test_runs_that_would_look_robust_are_named():
    run = make_run("collapsed")
    wrong = changed(run, prediction=(run.records["label"] + 1) % 3, distance=np.inf)
    text = said(make_run("good"), wrong)
    assert "The best run on this data set is right on 80.0 %, collapsed on 0.0 %: a collapsed network" in text
    assert "No attack succeeded on any sample of collapsed" in text
    assert "good" not in text


def test_a_worse_run_on_other_data_is_not_called_collapsed():
    run = make_run("hard", dataset="imagenet")
    wrong = changed(run, prediction=(run.records["label"] + 1) % 3)
    assert "hard on" not in said(make_run("easy"), wrong)


def test_errors_are_counted():
    assert "3 of 40 samples of a could not be measured" in said(with_errors(make_run("a"), np.arange(40) < 3))


def test_settings_stand_side_by_side():
    runs = [make_run("a", size=[28, 28]), make_run("b", size=[28, 28], model="<b>", only=True)]
    frame, marked = settings(runs)
    rows = frame.set_index("name")
    assert rows.loc["model"].tolist() == ["mlp.py:make", "<b>", "≠"]
    assert rows.loc["size"].tolist() == ["28, 28", "28, 28", ""]
    assert rows.loc["only"].tolist() == ["–", "True", "≠"]
    assert rows.loc["weights hash"].tolist() == ["ab12", "ab12", ""]
    assert frame["name"].iloc[sorted(marked)].tolist() == ["model", "only"]
    frame, marked = versions(runs)
    assert frame["name"].tolist() == ["torch"]
    assert not marked


def test_a_run_without_a_manifest_is_shown():
    bare = Run("bare", {"versions": None}, make_run().records, {})
    assert len(versions([bare])[0]) == len(settings([bare])[0]) == 0
    assert facts([bare]) == "1 run · data: – · 40 samples · norm: not said · attacks: –"


def test_values_of_a_manifest_are_short():
    assert show([f"class {i}" for i in range(1000)]) == "class 0, class 1, class 2, class 3, … (1,000 in all)"
    assert [show(value) for value in (None, 0.5, True, {"a": "é"}, [1.0, 2])] == [
        "–",
        "0.5",
        "True",
        '{"a": "é"}',
        "1, 2",
    ]


def test_a_network_no_better_than_chance_is_named():
    poor, good = make_run("poor", n=60), make_run("good", n=60)
    records: Any = poor.records
    records["label"] = (records["prediction"] + 1 + np.arange(60) % 3 // 2) % 3
    found = notices([poor, good], summarise_runs([poor, good]))
    assert any(text.startswith("poor is right on 0.0 %, which may be chance (33.3 %, 3 ") for text in found)
    assert not any("good is right" in text for text in found)
