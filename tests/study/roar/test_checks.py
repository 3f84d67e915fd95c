import pytest
import torch
from torch import nn

from captum_alignment.study.load import Split
from captum_alignment.study.roar._checks import check_classes, check_factory, check_features, check_splits


def split(*shape: int, labels: int = 3) -> Split:
    return Split(torch.rand(4, *shape), torch.arange(4) % labels, torch.arange(4))


SMALL = split(1, 2, 2)


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes))


def test_images_of_both_splits_have_one_shape():
    check_splits(SMALL, split(1, 2, 2))
    with pytest.raises(ValueError, match=r"test: got images of shape \(1, 3, 3\), expected \(1, 2, 2\)"):
        check_splits(SMALL, split(1, 3, 3))


def test_a_fraction_removes_something_and_leaves_something():
    check_features(SMALL, (0.25, 0.75), "pixel")
    check_features(split(3, 2, 2), (0.1,), "value")
    with pytest.raises(ValueError, match=r"0\.1 of 4 features are none or all"):
        check_features(split(3, 2, 2), (0.1,), "pixel")


def test_the_classes_are_those_of_the_labels():
    check_classes(network(), SMALL, "model")
    with pytest.raises(ValueError, match="make_model: has classes 0 to 1, but there are labels from 0 to 2"):
        check_classes(network(2), SMALL, "make_model")
    with pytest.raises(ValueError, match=r"scores of shape \(2, 1, 2, 2\), expected \(N, K\)"):
        check_classes(nn.Identity(), SMALL, "model")


def test_a_factory_makes_fresh_networks_and_leaves_chance_alone():
    state = torch.get_rng_state()
    check_factory(network, SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    one = network()
    with pytest.raises(ValueError, match="the same weights twice"):
        check_factory(lambda: one, SMALL)
    with pytest.raises(TypeError, match=r"returned str, expected a torch\.nn\.Module"):
        check_factory(lambda: "network", SMALL)  # pyright: ignore
