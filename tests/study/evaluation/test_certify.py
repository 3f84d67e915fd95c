"""Bounds from below in the records: those of the functions, resumed, and refused once."""

import numpy as np
import pytest
from torch import nn

from captum_alignment.metrics import linear_region
from captum_alignment.robust import certified_distance
from captum_alignment.study.evaluation import evaluate, read_records, read_run
from captum_alignment.study.evaluation._records import part_file
from tests.study.evaluation.test_evaluate import Images, network

NAMES = ["lower_bound", "linear_region", "lemma_1"]


@pytest.mark.parametrize("norm", [2, float("inf")])
def test_columns_are_those_of_the_functions(norm):
    records = evaluate(network(), Images(5), norm=norm, certify="medium")
    x = Images(5).images
    lower = certified_distance(network(), x, norm=norm, bounds=(0, 1), effort="medium")
    region = linear_region(network(), x, norm=norm)
    np.testing.assert_allclose(records["lower_bound"], lower, rtol=1e-6)
    np.testing.assert_allclose(records["linear_region"], region.radius, rtol=1e-5)
    assert (records["lemma_1"] == region.applies.numpy()).all()
    assert (records["lower_bound"] <= records["distance"]).all()
    assert not set(NAMES) & set(evaluate(network(), Images(2)))


def test_what_was_interrupted_goes_on(tmp_path):
    whole = evaluate(network(), Images(6), out=tmp_path, certify="fast", part_size=3)
    part_file(tmp_path, 1).unlink()
    again = evaluate(network(), Images(6), out=tmp_path, certify="fast", part_size=3)
    np.testing.assert_allclose(again[NAMES], whole[NAMES], rtol=1e-6)
    with pytest.raises(ValueError, match="certify"):
        evaluate(network(), Images(6), out=tmp_path, part_size=3)


def test_a_network_that_cannot_be_certified_is_measured_all_the_same(tmp_path):
    net = nn.Sequential(network(), nn.GELU()).eval()
    with pytest.warns(UserWarning, match="nothing is certified of this model.*'gelu'") as told:
        evaluate(net, Images(6), out=tmp_path, certify="fast", part_size=3)
    assert len([w for w in told if "certified" in str(w.message)]) == 1
    records = read_records(tmp_path)
    assert not set(NAMES) & set(records)
    assert records["distance"].notna().all()
    assert records["error"].isna().all()
    assert "gelu" in read_run(tmp_path).config["refused"]


def test_efforts_are_checked():
    with pytest.raises(ValueError, match="certify: got 'most', expected fast, medium, thorough or None"):
        evaluate(network(), Images(2), certify="most")
