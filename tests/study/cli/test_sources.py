import pytest
import torch

from captum_alignment.study.cli._sources import load_splits, load_subject

FACTORY = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
CPU = torch.device("cpu")


def test_splits_are_those_of_the_source_and_of_their_sizes():
    train, test, about = load_splits({"data": "digits", "train_size": 30, "test_size": 20}, None)
    assert (len(train), len(test)) == (30, 20)
    assert about == {"resize": None, "crop": None}
    again, _, _ = load_splits({"data": "digits", "train_size": 30, "test_size": 20}, None)
    assert torch.equal(train.images, again.images)
    with pytest.raises(ValueError, match="--test-size: got 999, expected 1 to 500"):
        load_splits({"data": "digits", "test_size": 999}, None)


def test_fresh_networks_have_the_normalisation_and_other_weights(tmp_path):
    file = tmp_path / "nets.py"
    file.write_text(FACTORY)
    subject = load_subject({"model": f"{file}:make", "mean": [0.5], "std": [0.25]}, CPU)
    assert (subject.name, subject.retrained) == ("nets.py:make", "nets.py:make")
    images = torch.rand(3, 1, 8, 8)
    first, second = subject.make().eval(), subject.make().eval()
    assert first(images).shape == (3, 10)
    assert not torch.equal(first(images), second(images))
    # The same weights and the same normalisation give the same scores.
    first.load_state_dict(subject.model.state_dict())
    torch.testing.assert_close(first(images), subject.model(images))
