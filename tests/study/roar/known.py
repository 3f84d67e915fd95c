"""Images whose informative pixels are known, attributions that rank them as wished, and a linear network."""

import torch
from torch import Tensor, nn

SIZE, CLASSES = 8, 4
#: Two pixels for each class; the others are noise.
INFORMATIVE = torch.tensor([[9, 10], [13, 14], [41, 42], [45, 46]])


class Marked:
    """``n`` images of noise, on which the two pixels of the class are bright."""

    def __init__(self, n: int, seed: int = 0, channels: int = 1):
        generator = torch.Generator().manual_seed(seed)
        self.images = 0.6 * torch.rand(n, channels, SIZE, SIZE, generator=generator)
        self.labels = torch.arange(n) % CLASSES
        for image, label in zip(self.images, self.labels, strict=True):
            image.flatten(1)[:, INFORMATIVE[label]] = 0.9

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def network(channels: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * SIZE * SIZE, CLASSES))


def known_network() -> nn.Sequential:
    """Knows the informative pixels of every class."""
    net = network()
    weight, bias = net.parameters()
    with torch.no_grad():
        weight.zero_()
        bias.zero_()
        for label, pixels in enumerate(INFORMATIVE):
            weight[label, pixels] = 1
    return net.eval()


def perfect(images: Tensor, targets: Tensor) -> Tensor:
    """The informative pixels of all classes on top, whatever the class, so that the mask alone tells nothing."""
    maps = torch.zeros_like(images)
    maps.flatten(2)[..., INFORMATIVE.flatten()] = 1
    return maps


def reversed_(images: Tensor, targets: Tensor) -> Tensor:
    return -perfect(images, targets)


def constant(images: Tensor, targets: Tensor) -> Tensor:
    return torch.ones_like(images)


TRAIN, TEST = Marked(200), Marked(100, seed=1)
METHODS = {"perfect": perfect, "random": "random", "reversed": reversed_}
FAST = {"epochs": 8, "batch_size": 20, "learning_rate": 0.03}
