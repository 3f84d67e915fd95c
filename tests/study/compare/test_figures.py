import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.compare._diagnosis import OTHERS, residual_sentence, run_profile, top_terms
from captum_alignment.study.compare._diagnosis_figures import run_linearity_figure, run_split_figure, run_terms_figure
from captum_alignment.study.compare._figures import (
    distribution_figure,
    eps_grid,
    far_apart,
    robust_accuracy_figure,
    run_scatter_figure,
)
from captum_alignment.study.compare._summary import robust_accuracy, summarise_runs
from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import Cloud, scatter_panels
from tests.study.runs import changed, frame, make_run, with_errors

ALL = np.ones(40, dtype=bool)


def everything(runs):
    summary = summarise_runs(runs)
    return [
        distribution_figure(runs),
        robust_accuracy_figure(runs),
        run_scatter_figure(runs, "linearized_distance"),
        run_scatter_figure(runs, "linearized_alignment"),
        run_split_figure(runs, summary),
        run_terms_figure(runs),
        run_linearity_figure(runs, summary),
    ]


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


def test_curves_of_robust_accuracy_are_those_of_the_summary():
    runs = [make_run("a"), make_run("b", seed=1, scale=2)]
    (axes,) = robust_accuracy_figure(runs).axes
    for line, run in zip(axes.get_lines(), runs, strict=True):
        x, y = map(np.asarray, line.get_data())
        np.testing.assert_allclose(y, robust_accuracy(run, x)["share"])
    labels = [text.get_text() for text in robust_accuracy_figure(runs).legends[0].get_texts()]
    assert labels == ["a", "b"]


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


def test_many_points_become_a_density():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 6000)
    few, many = scatter_panels([Cloud("few", x[:9], x[:9]), Cloud("many", x, x)], ("distance", "distance"), None).axes
    assert len(few.collections[0].get_offsets()) == 9  # pyright: ignore[reportArgumentType]
    assert float(np.sum(many.collections[0].get_array())) > 5900  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_the_largest_terms_of_every_run_are_shown_and_the_rest_summed():
    rng = np.random.default_rng(0)
    run = make_run("small", n=30)
    columns = {f"bias:layer{i}.bias": rng.normal(0, 0.01 * (i + 1), 30) for i in range(20)}
    large = changed(make_run("large", n=30, seed=1), **columns)
    shown = top_terms([run, large])
    assert shown.index[0] == "input_term"
    assert {"0.bias", "2.bias", "layer19.bias"} <= set(shown.index)
    assert shown.index[-1] == OTHERS
    assert len(shown) == 1 + 12 + 1
    terms = large.records[["input_term", *(name for name in large.records if str(name).startswith("bias:"))]].abs()
    shares = terms.div(terms.sum(axis=1), axis=0)
    np.testing.assert_allclose(shown.loc["layer19.bias", 1], shares["bias:layer19.bias"].median())  # pyright: ignore
    rest = shares.drop(columns=["input_term", *(f"bias:{name}" for name in shown.index[1:-1])]).sum(axis=1)
    np.testing.assert_allclose(shown.loc[OTHERS, 1], rest.median())  # pyright: ignore
    assert pd.isna(shown.loc["layer19.bias", 0])
    assert pd.isna(shown.loc[OTHERS, 0])


def test_profiles_are_medians():
    run = make_run(n=21)
    t, profile = run_profile(run, "margin:")
    assert t.tolist() == [0, 0.5, 1]
    assert profile.tolist() == pytest.approx([1, *run.records[["margin:0.5", "margin:1"]].median()])


def test_the_residual_is_told_as_it_is():
    curved = changed(make_run("vit"), relative_residual=0.25)
    assert "zero up to rounding" in residual_sentence([make_run()])
    assert "relative to the sum of their sizes: vit (0.250)" in residual_sentence([make_run(), curved])
    assert residual_sentence([with_errors(make_run(), ALL)]) == ""
