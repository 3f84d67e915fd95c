import numpy as np
import pytest
import torch
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import linearity_profile
from captum_alignment.study.evaluation import BACK, BIAS, FORWARD
from captum_alignment.study.evaluation._measure import explain, usable_scores
from captum_alignment.study.fit import small_network
from captum_alignment.study.load import load_data


def test_scores_that_mean_nothing_are_seen():
    def model(x):
        return x.flatten(1)

    inputs = torch.tensor([[[1.0, 2.0]], [[1.0, -torch.inf]], [[torch.nan, 0.0]], [[torch.inf, 0.0]]])
    assert usable_scores(model, inputs).tolist() == [True, True, False, False]


@pytest.fixture(scope="module")
def images():
    return load_data("digits", eval_size=12, train_size=1).held_out.images


def test_the_terms_sum_to_the_margin_and_the_profiles_are_the_librarys(images):
    torch.manual_seed(0)
    network = small_network((1, 8, 8), 10).eval()
    with torch.no_grad():
        network[13].bias -= network(images).mean(0)  # else an untrained network predicts one class everywhere
    analysis = linear_analysis(network, images)
    adversarials = adversarial_distance(network, images, attacks=("fast")).adversarials.clone()
    adversarials[3] = torch.nan  # what a failed attack leaves
    frame = explain(network, images, analysis, adversarials)
    terms = [f"{BIAS}{layer}.bias" for layer in (0, 3, 6, 10, 13)]
    assert [name for name in frame if name.startswith(BIAS)] == terms
    np.testing.assert_allclose(frame[["input_term", *terms]].sum(axis=1), analysis.gap.numpy(), atol=1e-6)
    assert (frame["relative_residual"] < 1e-5).all()
    profile = linearity_profile(network, images, adversarials=adversarials)
    for prefix, margins in ((FORWARD, profile.margin), (BACK, profile.adversarial_margin)):
        columns = [name for name in frame if name.startswith(prefix)]
        assert columns == [f"{prefix}{k / 10:g}" for k in range(1, 11)]
        np.testing.assert_allclose(frame[columns], margins[:, 1:], rtol=1e-5, atol=1e-6)
    assert frame["adversarial_deviation"].isna().tolist() == [k == 3 for k in range(12)]


def test_an_affine_network_falls_along_the_straight_line(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    analysis = linear_analysis(network, images)
    frame = explain(network, images, analysis, images)
    np.testing.assert_allclose(frame["deviation"], 0, atol=1e-5)
    np.testing.assert_allclose(frame["margin:0.5"], 0.5, atol=1e-5)
    assert frame["adversarial_deviation"].isna().all()
