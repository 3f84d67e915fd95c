import numpy as np

from captum_alignment.study.compare._diagnosis import top_terms
from captum_alignment.study.compare._diagnosis_figures import run_linearity_figure, run_split_figure, run_terms_figure
from captum_alignment.study.compare._summary import summarise_runs
from captum_alignment.study.evaluation import Run
from tests.study.runs import frame, make_run

RUNS = [make_run("a"), make_run("b", seed=1)]
SUMMARY = summarise_runs(RUNS)


def test_the_bound_is_apart_and_called_one():
    split, bound = run_split_figure(RUNS, SUMMARY).axes
    assert bound.get_title(loc="left") == "Upper bound, not an estimate"
    shown = {str(line.get_label()): np.asarray(line.get_xdata()) for line in split.get_lines()[1:]}
    assert set(shown) == {"α", "direction gap", "bias gap", "ρ̃, their sum"}
    np.testing.assert_allclose(shown["bias gap"], SUMMARY["bias_gap"])


def test_the_figure_of_the_terms_shows_their_shares_in_percent():
    (axes,) = run_terms_figure(RUNS).axes
    shares = top_terms(RUNS).to_numpy()
    assert [text.get_text() for text in axes.texts] == [f"{100 * share:.1f}" for share in shares.ravel()]


def test_a_point_of_the_link_is_a_run():
    forward, back, linked = run_linearity_figure(RUNS, SUMMARY).axes
    assert len(forward.get_lines()) == len(back.get_lines()) == 2 + 2  # the runs, the straight line and 0
    points = np.concatenate([np.asarray(marks.get_offsets()) for marks in linked.collections[2::3]])
    np.testing.assert_allclose(points, SUMMARY[["deviation", "spearman_alignment_distance"]])


def test_a_term_that_a_run_lacks_is_a_dash_and_the_input_has_no_shade():
    other = make_run("b", seed=1)
    bare = Run(other.name, other.manifest, frame(other).drop(columns="bias:2.bias"), {})
    (axes,) = run_terms_figure([RUNS[0], bare]).axes
    assert [text.get_text() for text in axes.texts].count("–") == 1
    shades = axes.images[0].get_array()
    assert shades is not None
    assert np.isnan(np.ma.filled(shades, np.nan)[0]).all()
