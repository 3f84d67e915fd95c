"""What is taken from a named layer, and what an explainer makes of it."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment._core._features import explain, find_layer, with_features
from tests.nets import cnn, images


def test_features_are_those_of_the_layer_on_its_graph_whatever_follows():
    net: Any = cnn()
    x = images()
    scores, features = with_features(lambda: net(x), net, "4")  # an in-place ReLU follows
    torch.testing.assert_close(features, net[:5](x))
    torch.testing.assert_close(scores, net(x))
    found = torch.autograd.grad(features.sum(), net[0].weight)
    torch.testing.assert_close(found, torch.autograd.grad(net[:5](x).sum(), net[0].weight))
    assert not any(module._forward_hooks for module in net.modules())


def test_the_hook_is_removed_after_an_error():
    net: Any = cnn()
    with pytest.raises(RuntimeError):
        with_features(lambda: net(torch.zeros(1, 9, 8, 8, dtype=torch.float64)), net, "4")
    assert not net[4]._forward_hooks


def test_the_root_is_a_layer_too():
    net = nn.Conv2d(1, 2, 3)
    assert find_layer(net, "") is net


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (11, 5)])
def test_maps_have_the_size_of_the_image_and_the_dtype_of_the_explainer(size):
    explainer, features = nn.Conv2d(3, 2, 1), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    found = explain(explainer, features, torch.Size((4, 2, *size)))
    expected = F.interpolate(explainer(features.float()), size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"explainer: returned \(4, 192\) for images"):
        explain(nn.Flatten(), features, torch.Size((4, 2, *size)))
    assert explain(nn.Upsample(size=size), features, torch.Size((4, 3, *size))).dtype == torch.float64
