"""The networks that are trained, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from captum_alignment._optional import WhenUsed

# The command line lists the names before anything that is slow is needed.
if TYPE_CHECKING:
    from torch import nn

    from captum_alignment.study.load import Split
else:
    nn = WhenUsed("torch.nn")


def small_network(image_shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """The MNIST network of Etmann et al. 2019: images (N, C, H, W) of at least 8 x 8 to scores (N, K).

    Three 3 x 3 convolutions of 32, 64 and 128 channels, each with ReLU and 2 x 2 max pooling; a dense layer of 128 with
    ReLU and dropout .5; a dense layer of K.
    """
    channels, height, width = image_shape
    if min(height, width) < 8:
        raise ValueError(f"image_shape: got {image_shape}, expected at least 8 x 8 pixels (three poolings)")
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    features = 128 * (height // 8) * (width // 8)
    head = [nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, classes)]
    return nn.Sequential(*layers, *head)


def small_image_resnet18(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """torchvision's ResNet-18 for images of 32 pixels: a 3 x 3 first convolution without stride, no first pooling."""
    from torchvision.models import resnet18  # noqa: PLC0415 - needed for this network only

    network = resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue] - annotated as the layer it replaces
    return network


#: Networks by name: what makes one for images (C, H, W) and a number of classes.
NETWORKS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "small": small_network,
    "resnet18": small_image_resnet18,
}


def network_factory(name: str, train: Split) -> Callable[[], nn.Module]:
    """What makes networks ``name`` for the images and classes of ``train``."""
    channels, height, width = train.images.shape[1:]
    return partial(NETWORKS[name], (channels, height, width), int(train.labels.max()) + 1)
