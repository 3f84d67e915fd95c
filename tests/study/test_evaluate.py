import numpy as np
import pytest
import torch

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import alignment_null
from captum_alignment.study import _evaluate
from captum_alignment.study._cohort import Member, load_network
from captum_alignment.study._config import ATTACKS, make_config
from captum_alignment.study._explain import explain
from captum_alignment.study._splits import load_data


@pytest.fixture(scope="module")
def samples():
    return load_data(make_config(eval_size=24, train_size=1)).held_out


@pytest.fixture
def network(tiny_study):
    data = load_data(make_config(eval_size=2, train_size=1))
    return load_network(Member(0.0, 0), data, tiny_study)


def test_the_records_are_the_librarys_numbers(samples, network):
    frame, maps = _evaluate.evaluate(network, samples, ("gradient", "ddn"), device=torch.device("cpu"))
    analysis = linear_analysis(network, samples.images)
    found = adversarial_distance(network, samples.images, attacks=_evaluate.make_attacks(("gradient", "ddn")))
    null = alignment_null(samples.images, analysis.gradient)
    expected = {
        "sample": samples.index,
        "label": samples.labels,
        "prediction": analysis.target,
        **{name: value for name, value in analysis.scalars().items() if name != "target"},
        **{name: getattr(null, name) for name in ("null", "excess", "rank")},
        "distance": found.distance,
        **{f"distance_{name}": value for name, value in found.by_attack.items()},
    }
    explained = explain(network, samples.images, analysis.rival, found.adversarials)
    assert {*expected, *explained, "attack"} == set(frame)
    for name, value in expected.items():
        np.testing.assert_allclose(frame[name], value.numpy(), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(frame[explained.columns], explained, rtol=1e-5, atol=1e-6)
    best = frame[["distance_gradient", "distance_ddn"]].min(axis=1)
    assert (frame["distance"] <= best * (1 + 1e-6)).all()
    np.testing.assert_array_equal(maps["image"], samples.images[maps["position"]].numpy())
    changed = network(torch.from_numpy(maps["adversarial"])).argmax(1).numpy()
    success = np.isfinite(frame["distance"].to_numpy()[maps["position"]])
    assert ((changed != frame["prediction"].to_numpy()[maps["position"]]) == success).all()


def test_batches_change_nothing_but_rounding(samples, network, monkeypatch):
    whole, _ = _evaluate.evaluate(network, samples, ("gradient",), device=torch.device("cpu"))
    monkeypatch.setattr(_evaluate, "_BATCH", 7)
    counts = []
    parts, _ = _evaluate.evaluate(network, samples, ("gradient",), device=torch.device("cpu"), progress=counts.append)
    assert counts == [7, 7, 7, 3]
    for name in ("alignment", "null", "linearized_robustness", "distance"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-3)


def test_every_attack_that_a_study_can_name_finds_adversarials(samples, network):
    result = adversarial_distance(network, samples.images, attacks=_evaluate.make_attacks(ATTACKS))
    assert result.names == ATTACKS
    for name, distance in result.by_attack.items():
        assert distance.isfinite().float().mean() > 0.9, name
    assert _evaluate.make_attacks(("paper",)) == "paper"


def test_the_gallery_shows_the_first_sample_of_each_class():
    labels = torch.tensor([3, 1, 3, 0, 1, 7])
    assert _evaluate.gallery_positions(labels).tolist() == [3, 1, 0, 5]
    assert len(_evaluate.gallery_positions(torch.arange(10))) == 6
