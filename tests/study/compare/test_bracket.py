"""The section of the report on what is certain."""

import numpy as np
import pytest

from captum_alignment.study.compare import write_runs_report
from captum_alignment.study.compare._bracket import band, bracket, bracket_figure, bracket_row
from captum_alignment.study.evaluation import Run
from tests.study.figures import faults
from tests.study.runs import changed, frame, make_run


def certified(name="kw", **columns):
    return changed(make_run(name, certify="medium"), **columns)


def test_shares_count_what_is_certain():
    distance = np.array([1.0, 1.0, 1.0, np.inf] * 10)
    run = certified(
        distance=distance,
        lower_bound=np.array([0.95, 0.5, 0.89, 0.9] * 10),
        linearized_robustness=np.array([1.1, 0.4, 0.9, 2.0] * 10),
        lemma_1=np.array([1.0, 0.0, 0.0, 0.0] * 10),
    )
    row = bracket_row(run)
    assert row["known"] == pytest.approx(0.25)
    assert row["below"] == pytest.approx(0.25)
    assert row["above"] == pytest.approx(0.25)
    assert row["lemma_1"] == pytest.approx(0.25)
    assert row["share"] == pytest.approx(0.89)


def test_the_band_lies_between_certified_and_attacked():
    run = certified()
    eps = np.linspace(0, 2, 50)
    low, high = band(run, eps)
    assert low[0] == high[0] == pytest.approx(run.correct.mean())
    lower, right = run.values("lower_bound"), run.correct
    assert low[10] == pytest.approx(np.mean((lower >= eps[10]) & right))
    assert (low <= high).all()
    assert (low < high).any()
    figure = bracket_figure({0: run})
    assert faults(figure) == []
    drawn = figure.axes[0].lines
    assert (np.asarray(drawn[0].get_ydata()) <= np.asarray(drawn[1].get_ydata())).all()


def test_only_runs_that_asked_have_the_section(tmp_path):
    assert bracket([make_run()]) is None
    refused = make_run("gelu", certify="fast", refused="uses 'gelu'")
    bounds = ["lower_bound", "linear_region", "lemma_1"]
    refused = Run(refused.name, refused.manifest, frame(refused).drop(columns=bounds), {})
    found = bracket([make_run(), refused])
    assert found is not None
    assert found.picture is None
    write_runs_report(tmp_path / "report.html", [certified(), refused, make_run("plain")])
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "What is certain" in html
    assert "uses &#39;gelu&#39;" in html
    write_runs_report(tmp_path / "plain.html", [make_run()])
    assert "What is certain" not in (tmp_path / "plain.html").read_text("utf-8")
