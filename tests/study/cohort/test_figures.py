import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.cohort._cohort import make_cohorts
from captum_alignment.study.cohort._figures import alignment_figure, strengths_figure
from captum_alignment.study.fit import TRAININGS
from tests.study.figures import faults
from tests.study.runs import cohort_of, make_records, runs_of


def test_figures_mark_what_is_left_out():
    cohorts = [cohort_of(make_records(accuracy=(1, 1, 1, 0.1)))]
    assert faults(strengths_figure(cohorts)) == faults(alignment_figure(cohorts)) == []
    texts = [text.get_text() for axes in strengths_figure(cohorts).axes for text in axes.texts]
    assert "grey: left out" in texts
    figure = alignment_figure(cohorts)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"ρ, smallest over attacks", "ρ̃, linearized", "gradient attack", "DDN", "chance level"} <= set(labels)
    crosses = next(line for line in figure.axes[0].get_lines() if line.get_marker() == "x")
    assert np.asarray(crosses.get_xdata()) == pytest.approx(cohorts[0].medians["distance"][3])


def test_a_curve_for_each_training():
    two = pd.concat([make_records(seeds=(0, 1)), make_records((0.1, 0.4), seeds=(0, 1), training="pgd-l2", seed=1)])
    cohorts = make_cohorts(runs_of(two), ["lipschitz", "pgd-l2"])
    (axes,) = alignment_figure(cohorts).axes
    curve = next(line for line in axes.get_lines() if line.get_label() == "pgd-l2")
    np.testing.assert_allclose(np.asarray(curve.get_xdata()), cohorts[1].medians["distance"].mean(axis=1))
    np.testing.assert_allclose(np.asarray(curve.get_ydata()), cohorts[1].medians["alignment"].mean(axis=1))
    assert len(strengths_figure(cohorts).axes) == 6


def test_many_trainings_with_long_names_stay_apart():
    names = [name for name in TRAININGS if "-" in name]
    records = [make_records((0.1, 0.4), seeds=(0, 1), training=name, seed=seed) for seed, name in enumerate(names)]
    cohorts = make_cohorts(runs_of(pd.concat([make_records(seeds=(0, 1)), *records])), names)
    assert len(cohorts) > 6
    figure = alignment_figure(cohorts)
    assert faults(figure) == []
    curves = [line for line in figure.axes[0].get_lines() if line.get_label() in names]
    assert len({(line.get_color(), line.get_marker()) for line in curves}) == len(cohorts)
    assert [text.get_text() for text in figure.legends[0].get_texts()].count("chance level") == 1


def test_figures_survive_infinite_medians_and_a_single_model(tmp_path):
    records = make_records(strengths=(0.5,))
    records["distance_ddn"] = np.inf
    records["distance"] = np.inf
    for figure in (strengths_figure([cohort_of(records)]), alignment_figure([cohort_of(records)])):
        figure.savefig(tmp_path / "figure.png")
