"""The networks that the command trains, explains and retrains."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from captum_alignment.study._files import read_weights
from captum_alignment.study._networks import SmallNet
from captum_alignment.study._roar_cell import Retraining, fit_fresh
from captum_alignment.study._splits import Split

#: Not one of the seeds of the grid, whose networks would begin where the explained one began.
SEED = 2**31 - 1


def small_image_resnet18(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """torchvision's ResNet-18 for images of 32 pixels: a 3 x 3 first convolution without stride, no first pooling."""
    from torchvision.models import resnet18  # noqa: PLC0415 - needed for this network only

    network = resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue] - annotated as the layer it replaces
    return network


NETWORKS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "small": SmallNet,
    "resnet18": small_image_resnet18,
}


def network_factory(name: str, train: Split) -> Callable[[], nn.Module]:
    """What makes networks ``name`` for the images and classes of ``train``."""
    channels, height, width = train.images.shape[1:]
    return partial(NETWORKS[name], (channels, height, width), int(train.labels.max()) + 1)


def trained(
    make: Callable[[], nn.Module], kept: Path, train: Split, retraining: Retraining, *, device: torch.device
) -> nn.Module:
    """The network of the weights ``kept``; where there are none, one that is trained as the cells are.

    Raises:
        ValueError: weights of another network, or a training that diverged.
    """
    if kept.is_file():
        network = make()
        try:
            network.load_state_dict(read_weights(kept))
        except Exception as error:
            raise ValueError(f"{kept}: holds no weights of this network; use a new folder") from error
        return network.eval()
    return fit_fresh(make, train, retraining, seed=SEED, device=device, name="the network that is to be explained")
