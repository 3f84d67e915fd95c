import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.compare._diagnosis import OTHERS, residual_sentence, run_profile, top_terms
from tests.study.runs import changed, make_run, with_errors

ALL = np.ones(40, dtype=bool)


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
