import pytest
import torch

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
    net, images = known_network(), SPLIT.images
    found = alignments(net, images)
    maps = next(net.parameters()).detach()[net(images).argmax(1)].view(images.shape)
    for kind, of in {"signed": maps, "absolute": maps.abs()}.items():
        chance = alignment_null(images, of)
        assert found[f"{kind}_alignment"] == pytest.approx(float(chance.alignment.median()), rel=1e-2)
        assert 0 <= found[f"{kind}_rank"] <= 1
    assert found["absolute_rank"] == found["signed_rank"]  # its weights are not negative
