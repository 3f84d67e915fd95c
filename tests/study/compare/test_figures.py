import numpy as np
import pytest

from captum_alignment.study.compare._diagnosis_figures import run_terms_figure
from captum_alignment.study.compare._figures import (
    beyond_sentence,
    distribution_figure,
    eps_grid,
    robust_accuracy_figure,
)
from captum_alignment.study.compare._pictures import drawn
from captum_alignment.study.compare._scatter import cut_off, far_apart, run_scatter_figure
from captum_alignment.study.compare._summary import robust_accuracy, summarise_runs
from captum_alignment.study.evaluation import Run
from tests.study.figures import faults
from tests.study.runs import changed, frame, make_run, with_errors

ALL = np.ones(40, dtype=bool)


def everything(runs):
    """What the report draws; that of biases also where there are none."""
    figures = drawn(runs, summarise_runs(runs), [[run] for run in runs])
    return [*(figure for figure, _ in figures.values()), run_terms_figure(runs)]


@pytest.mark.parametrize(
    "runs",
    [
        [make_run(n=1)],
        [make_run(n=2), make_run("other", n=9, scale=100)],
        [with_errors(make_run("failed"), ALL), make_run("fine")],
        [with_errors(make_run("failed"), ALL)],
        [changed(make_run("robust"), distance=np.inf, linearized_robustness=np.inf, bias_gap=np.inf, bound=np.inf)],
        [changed(make_run("constant"), distance=0.0, linearized_robustness=0.0, alignment=0.0, null=0.0)],
        [Run("bare", {}, frame(make_run()).loc[:, ["sample", "id", "error"]], {})],
        [make_run(f"$run_{i}" * 9, seed=i) for i in range(13)],
    ],
    ids=["one sample", "far apart", "failed and fine", "failed", "infinite", "zero", "bare", "thirteen"],
)
def test_every_figure_can_be_drawn(runs, tmp_path):
    for figure in everything(runs):
        figure.savefig(tmp_path / "figure.png", dpi=30)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_every_axis_says_its_quantity_and_nothing_is_cut(count):
    runs = [make_run(f"lipschitz-0.1_seed-{seed}", seed=seed) for seed in range(count)]
    almost_linear = changed(runs[0], deviation=runs[0].values("deviation") * 1e-7)
    for figure in (*everything(runs), *everything([almost_linear])):
        assert faults(figure) == []
    titles = [axes.get_title(loc="left").strip() for axes in run_scatter_figure(runs, "linearized_distance").axes]
    assert titles == [run.name for run in runs]
    labels = [axes.get_xlabel() for axes in distribution_figure(runs).axes]
    assert labels == ["ρ, distance (l₂)", "ρ̃, linearized robustness (l₂)", "α, alignment (l₂)"]


def test_curves_of_robust_accuracy_are_those_of_the_summary():
    runs = [make_run("a"), make_run("b", seed=1, scale=2)]
    figure = robust_accuracy_figure([[run] for run in runs])
    for line, run in zip(figure.axes[0].get_lines(), runs, strict=True):
        x, y = map(np.asarray, line.get_data())
        np.testing.assert_allclose(y, robust_accuracy(run, x)["share"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_the_grid_is_logarithmic_only_where_runs_are_far_apart():
    near = eps_grid([make_run("a"), make_run("b", scale=3)], 50)
    far = eps_grid([make_run("a"), make_run("b", scale=300)], 50)
    assert near[0] == 0 < far[0]
    assert far_apart([np.array([0.0, 1.0]), np.array([30.0, np.inf])])
    assert not far_apart([np.array([0.0]), np.array([np.inf])])


def test_infinite_shares_and_medians_are_shown():
    axes = distribution_figure([make_run(n=40)]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["∞ 10 %"]
    middle = float(axes.get_lines()[0].get_xdata()[0])  # pyright: ignore[reportArgumentType, reportIndexIssue]
    assert middle in make_run(n=40).values("distance")


def test_what_lies_beyond_an_axis_is_counted():
    run = make_run("a", n=1000)
    distances = run.values("distance").copy()
    distances[np.isfinite(distances)] = 1.0
    distances[:3] = 50.0
    run = changed(run, distance=distances)
    assert "distances 3 above the ends" in beyond_sentence([run])
    assert beyond_sentence([changed(run, distance=1.0)]) == beyond_sentence([]) == ""
    figure = run_scatter_figure([run], "linearized_distance")
    (points,) = figure.axes[0].collections
    x, y = np.asarray(points.get_offsets()).T
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    outside = int(((x < left) | (x > right) | (y < bottom) | (y > top)).sum())
    assert cut_off([run], "linearized_distance") == outside > 0


def test_the_axis_of_robust_accuracy_names_the_norm():
    (axes,) = robust_accuracy_figure([[make_run("a")]]).axes
    assert "l₂" in axes.get_xlabel()
    assert "right" in axes.get_ylabel()
