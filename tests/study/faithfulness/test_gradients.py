import pytest
import torch
from torch import nn

from captum_alignment.metrics import alignment_null
from captum_alignment.study.faithfulness._gradients import alignments, gradients_of
from captum_alignment.study.load import as_split
from tests.study.roar.known import TEST, known_network

SPLIT = as_split(TEST, "test", (0, 1))


def test_gradients_are_those_of_the_class_that_the_network_itself_predicts():
    images = SPLIT.images[:4]
    found = gradients_of(known_network())(images, torch.zeros(4, dtype=torch.long))
    weight = next(known_network().parameters()).detach()
    torch.testing.assert_close(found, weight[SPLIT.labels[:4]].view(found.shape))
    assert not images.requires_grad


def test_alignments_are_the_librarys_numbers_of_signed_and_absolute_gradients():
    images = SPLIT.images
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3, bias=False))
    found = alignments(net, images)
    maps = next(net.parameters()).detach()[net(images).argmax(1)].view(images.shape)
    for kind, of in {"signed": maps, "absolute": maps.abs()}.items():
        chance = alignment_null(images, of)
        assert found[f"{kind}_alignment"] == pytest.approx(float(chance.alignment.median()), rel=1e-2)
        assert found[f"{kind}_rank"] == pytest.approx(float(chance.rank.median()), abs=0.05)
