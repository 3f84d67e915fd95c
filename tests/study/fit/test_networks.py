import pytest
import torch

from captum_alignment.study.fit import NETWORKS
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
