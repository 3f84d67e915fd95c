import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from captum_alignment.study import Logits
from captum_alignment.study.load import Autocast, evaluation_mode
from captum_alignment.study.load._adapters import Normalize
from tests.nets import cnn, images


class Classifier(nn.Module):
    def forward(self, pixel_values, scale=1):
        return SimpleNamespace(logits=scale * pixel_values.flatten(1))


def test_normalize_checks_the_channels():
    with pytest.raises(ValueError, match="--mean: got 3 values, expected 1, the channels of the images"):
        Normalize([0.1, 0.2, 0.3], [1, 1, 1])(torch.rand(2, 1, 4, 4))
    assert set(Normalize([0.1], [1]).state_dict()) == {"mean", "std"}
    assert Normalize([0.1], [1]).double()(torch.rand(2, 3, 4, 4).double()).shape == (2, 3, 4, 4)


def test_logits():
    x = torch.rand(2, 3)
    assert torch.equal(Logits(Classifier())(x), x)
    assert torch.equal(Logits(Classifier())(x, 2), 2 * x)
    assert torch.equal(Logits(Classifier())(x, scale=3), 3 * x)
    with pytest.raises(TypeError, match=r"model: its output is of type Tensor without a tensor \.logits, expected"):
        Logits(nn.Identity())(x)


@pytest.mark.slow  # the import of transformers
def test_logits_of_a_hugging_face_classifier():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=5)
    model = transformers.ResNetForImageClassification(config).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(Logits(model)(x), model(x).logits)


def test_evaluation_mode_leaves_every_module_as_it_was():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2)).train()
    net[1].eval()
    with contextlib.suppress(KeyError), evaluation_mode(net):
        assert not any(module.training for module in net.modules())
        raise KeyError  # also then
    assert [module.training for module in net.modules()] == [True, True, False, True]
    with evaluation_mode(lambda x: x):
        pass


def test_autocast_runs_in_the_dtype_and_returns_float32():
    net, x = cnn().float(), images().float()
    reduced = Autocast(net, torch.bfloat16)
    scores = reduced(x)
    assert scores.dtype == torch.float32
    error = (scores - net(x)).abs().max()
    assert 0 < error < 0.05 * net(x).abs().max()
