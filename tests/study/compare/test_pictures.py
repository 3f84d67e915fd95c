"""The figures of a report, as Python has them."""

import re
from importlib import resources
from io import BytesIO

import matplotlib.figure
import numpy as np
import pytest
import torch

from captum_alignment.study import figures, page
from captum_alignment.study.compare._pictures import drawn, galleries
from captum_alignment.study.compare._summary import summarise_runs
from captum_alignment.study.evaluation import evaluate
from tests.study.evaluation.test_evaluate import Images, network
from tests.study.runs import make_run

#: The figures of every run, and those of some.
NAMES = ["distributions", "robust_accuracy", "linearized_distance", "linearized_alignment", "split", "linearity"]
OF_SOME = ["terms", "attributions"]


def pictures(*runs):
    return drawn(runs, summarise_runs(runs), [[run] for run in runs])


def test_runs_that_are_compared_have_one_scale():
    near = pictures(make_run("a"), make_run("b", scale=4, seed=1))
    for name in ("linearized_distance", "linearized_alignment"):
        figure, caption = near[name]
        one, other = figure.axes
        assert (one.get_xlim(), one.get_ylim()) == (other.get_xlim(), other.get_ylim())
        assert one.get_xlim()[1] > 4
        assert "a scale of its own" not in caption
    figure, caption = pictures(make_run("a"), make_run("b", scale=400))["linearized_distance"]
    assert figure.axes[0].get_xlim() != figure.axes[1].get_xlim()
    assert "every panel has a scale of its own" in caption


def test_figures_are_those_of_the_report_by_name(tmp_path):
    for seed, name in enumerate(("one", "two")):
        evaluate(network(), Images(6 + seed), out=tmp_path / name, attacks="deepfool", attributions=("gradcam",))
    found = figures([tmp_path / "one", str(tmp_path / "two")])
    assert set(found) == {
        *NAMES,
        *OF_SOME,
        *(f"gallery:{name}:{kind}" for name, kind in (("one", "least"), ("two", "least"), ("two", "most"))),
    }
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in found.values())
    assert [text.get_text() for text in found["robust_accuracy"].legends[0].get_texts()] == ["one", "two"]
    found["robust_accuracy"].savefig(BytesIO())
    with pytest.raises(ValueError, match="runs: got none"):
        figures([])


@pytest.mark.parametrize("name", [*NAMES, *OF_SOME])
def test_every_figure_has_its_place_in_the_report_and_in_the_docs(name):
    template = resources.files(page) / "templates" / "runs.html.jinja"
    assert f'{{{{ figure(pictures["{name}"], "wide") }}}}' in template.read_text("utf-8")
    assert re.search(rf"\b{name}\b", (figures.__doc__ or "").partition("Returns:")[2])


def test_a_gallery_does_not_repeat_the_saliency():
    run = make_run()
    run.gallery["attribution:saliency"] = run.gallery["gradient"]
    run.gallery["attribution:other"] = np.ones_like(run.gallery["gradient"])
    kinds = [
        (kind, [axes.get_title() for axes in figure.axes if axes.get_title()]) for kind, figure, _ in galleries(run)
    ]
    titles = ["image", "saliency", "binarized", "perturbation", "other"]
    assert kinds == [("least", titles), ("most", titles)]


def test_rows_of_tables_keep_their_values_and_signs(tmp_path):
    table = np.linspace(-4, 4, 24, dtype=np.float32).reshape(6, 4)
    net = torch.nn.Linear(4, 3)
    evaluate(net, (table, np.zeros(6, int)), out=tmp_path / "run", attacks="deepfool", bounds=(-5, 5))
    first = figures([tmp_path / "run"])["gallery:run:least"].axes[0]
    heights = [bar.get_height() for bar in first.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert min(np.abs(table - heights).max(1)) < 1e-6
