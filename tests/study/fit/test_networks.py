import pytest
import torch
from torch import nn

from captum_alignment.study.fit import LAYERS, NETWORKS, SmallNet
from captum_alignment.study.roar import PRESETS


def test_presets_name_networks_there_are():
    assert all(preset["network"] in NETWORKS for preset in PRESETS.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_small_images_and_keep_their_resolution(name):
    net = NETWORKS[name]((3, 32, 32), 7).eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    if name == "resnet18":
        shapes = []
        net.get_submodule("layer1").register_forward_hook(
            lambda module, inputs, output: shapes.append(output.shape[-2:])
        )
        net(torch.rand(2, 3, 32, 32))
        assert shapes == [(32, 32)]


def test_every_bias_of_the_network_has_a_name():
    network = SmallNet((1, 8, 8), 10)
    layers = {name: type(layer) for name, layer in network.named_children() if getattr(layer, "bias", None) is not None}
    assert {name: "conv" in label for name, label in LAYERS.items()} == {
        name: kind is nn.Conv2d for name, kind in layers.items()
    }
