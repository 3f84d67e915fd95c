import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.cohort._cohort import cohort_of
from captum_alignment.study.cohort._diagnosis import gaps_sentence, link, profiles, residual_sentence, term_shares
from captum_alignment.study.cohort._diagnosis_figures import linearity_figure, split_figure, terms_figure
from captum_alignment.study.evaluation import BACK, BIAS, FORWARD
from captum_alignment.study.fit import LAYERS
from captum_alignment.study.page import median, resample
from tests.study.conftest import make_records


def test_term_shares_are_those_of_the_records(tiny_study):
    records = pd.read_parquet(tiny_study / "records.parquet")
    names = ["input_term", *(name for name in records if name.startswith(BIAS))]
    assert len(names) == 6
    sizes = records[names].abs()
    expected = sizes.div(sizes.sum(axis=1), axis=0).groupby(records["strength"]).median()
    found = term_shares(cohort_of(records))
    assert list(found) == [name.removeprefix(BIAS) for name in names]
    for name, share in found.items():
        column = name if name == "input_term" else BIAS + name
        np.testing.assert_allclose(median(share)[:, 0], expected[column], rtol=1e-6)
    np.testing.assert_allclose(sum(found.values()), 1)


def test_the_figure_of_the_terms_shows_these_shares_in_percent(tiny_study):
    cohort = cohort_of(pd.read_parquet(tiny_study / "records.parquet"))
    (axes,) = terms_figure(cohort).axes
    texts = np.array([text.get_text() for text in axes.texts]).reshape(6, 2)
    for row, share in zip(texts, term_shares(cohort).values(), strict=True):
        assert row.tolist() == [f"{100 * value:.1f}" for value in median(share)[:, 0]]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[1:] == [f"bias of {name}" for name in LAYERS.values()]


def test_a_margin_without_terms_has_no_shares():
    records = make_records()
    collapsed = records["strength"] == 1.0
    records.loc[collapsed, ["input_term", "bias:0.bias", "bias:own (add)"]] = 0.0
    shares = term_shares(cohort_of(records))
    assert np.isnan(shares["0.bias"][2]).all()
    assert np.isfinite(shares["0.bias"][[0, 1, 3]]).all()
    (axes,) = terms_figure(cohort_of(records)).axes
    assert "–" in {text.get_text() for text in axes.texts}
    assert "own (add)" in {label.get_text() for label in axes.get_yticklabels()}


def test_profiles_are_medians_of_the_records(tiny_study):
    records = pd.read_parquet(tiny_study / "records.parquet")
    for prefix in (FORWARD, BACK):
        t, medians = profiles(cohort_of(records), prefix)
        np.testing.assert_allclose(t, np.linspace(0, 1, 11))
        columns = [f"{prefix}{k / 10:g}" for k in range(1, 11)]
        np.testing.assert_allclose(medians[:, 1:], records.groupby("strength")[columns].median())
        np.testing.assert_array_equal(medians[:, 0], 1)
    deviation = (records[[f"{FORWARD}{k / 10:g}" for k in range(1, 11)]] - (1 - t[1:])).abs().sum(axis=1) / 11
    np.testing.assert_allclose(records["deviation"], deviation, atol=1e-6)


def test_a_model_without_adversarials_has_no_profile_to_them():
    records = make_records()
    records.loc[records["strength"] == 1.0, ["adversarial_margin:0.5", "adversarial_margin:1"]] = np.nan
    _, medians = profiles(cohort_of(records), BACK)
    assert np.isnan(medians).all(axis=1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_link_is_the_loop_over_models_and_resamples(seeds):
    records = make_records(n=30, seeds=seeds)
    records.loc[records["sample"] == 4, "deviation"] = np.nan
    cohort = cohort_of(records)
    found = link(cohort)
    assert found is not None
    assert found.samples == 29
    kept = records[records["sample"] != 4]
    models = [list(group.groupby("training_seed")) for _, group in kept.groupby("strength")]

    def level(of, rows, seeds):
        values = [[of(frame.iloc[rows]) for _, frame in group] for group in models]
        return np.array(values)[:, seeds].mean(axis=1)

    def rank_correlation(frame):
        return frame["alignment"].corr(frame["distance"], "spearman")

    def deviation(frame):
        return frame["deviation"].median()

    everything = slice(None), slice(None)
    np.testing.assert_allclose(found.deviation, level(deviation, *everything))
    np.testing.assert_allclose(found.correlation, level(rank_correlation, *everything))
    for b in (0, 7):
        drawn = resample(29)[b], cohort.seed_indices[b]
        np.testing.assert_allclose(found.deviation_replicates[b], level(deviation, *drawn))
        np.testing.assert_allclose(found.correlation_replicates[b], level(rank_correlation, *drawn))


def test_the_larger_gap_is_named_with_its_count_over_usable_models():
    records = make_records(accuracy=(1, 1, 1, 0.1))
    usable = records[records["strength"] < 10]
    records["bias_gap"] = np.where(records["sample"] < 50, 9.0, 0.0)
    larger = int((records.loc[usable.index, "bias_gap"] > np.abs(usable["direction_gap"])).sum())
    assert gaps_sentence(cohort_of(records)) == (
        f"The bias gap is the larger one on {larger} of 180 samples (3 usable models)."
    )
    records["bias_gap"] = 0.0
    assert gaps_sentence(cohort_of(records)).startswith("The direction gap is the larger one on 180 of 180")


@pytest.mark.parametrize(("worst", "said"), [(3e-7, "zero up to rounding"), (0.2, "not piecewise linear")])
def test_the_residual_is_told_as_it_is(worst, said):
    records = make_records()
    records.loc[7, "relative_residual"] = worst
    sentence = residual_sentence(cohort_of(records))
    assert said in sentence
    assert f"{worst:#.3g}".replace("-", "−") in sentence


def test_the_bound_is_apart_and_called_one():
    split, bound = split_figure(cohort_of(make_records())).axes
    assert bound.get_title(loc="left") == "Upper bound, not an estimate"
    assert {line.get_label() for line in split.get_lines()[1:]} == {"α", "direction gap", "bias gap", "ρ̃, their sum"}


def test_lines_of_the_profiles_are_labelled_and_the_straight_line_is_among_them():
    cohort = cohort_of(make_records(accuracy=(1, 1, 1, 0.1)))
    figure = linearity_figure(cohort)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["λ = 0", "λ = 0.1", "λ = 1", "λ = 10, left out", "1 − t, linear"]
    assert len(np.asarray(figure.axes[2].collections[-1].get_offsets())) == 3


def test_figures_survive_a_collapsed_model_and_a_single_one(tmp_path):
    records = make_records(accuracy=(1, 1, 1, 0.1))
    collapsed = records["strength"] == 10.0
    records.loc[collapsed, ["linearized_robustness", "bias_gap", "bound", "distance"]] = np.inf
    records.loc[collapsed, ["deviation", "margin:0.5", "margin:1"]] = np.nan
    records.loc[collapsed, ["adversarial_margin:0.5", "adversarial_margin:1"]] = np.nan
    for cohort in (cohort_of(records), cohort_of(make_records(strengths=(0.5,)))):
        for figure in (split_figure(cohort), terms_figure(cohort), linearity_figure(cohort)):
            figure.savefig(tmp_path / "figure.png")
