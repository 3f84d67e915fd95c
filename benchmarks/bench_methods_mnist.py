"""What do the ways of training do on MNIST? A small CNN, 10,000 images, five epochs, medians over held-out images.

Per method: accuracy on 1,000 test images, the smallest l_2 distance that the "fast" portfolio finds on 100, the
certified distance of ten, linearized robustness, alignment and its ratio to chance. Means over training seeds, as many
as the argument says, with Student's 95 % intervals.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.datasets import MNIST

from benchmarks._methods import Comparison, arguments
from benchmarks._zoo import SHARED, available
from captum_alignment.training import (
    TRADES,
    EdgeAlignment,
    LinearRegions,
    LocalLipschitz,
    PerceptualAlignment,
)


def images(train: bool, count: int) -> tuple[Tensor, Tensor]:
    data = MNIST(SHARED / "data", train=train)
    return data.data[:count].unsqueeze(1).float() / 255, data.targets[:count]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip


def main() -> None:
    if not available():
        print("MNIST is not at hand: CAPTUM_ALIGNMENT_SHARED names a folder that holds data/MNIST")
        return
    x, y = images(True, 10_000)
    means = torch.stack([x[y == c].mean(0) for c in range(10)])
    methods = {
        "plain": None,
        "local Lipschitz, 3": lambda: LocalLipschitz(3.0),
        "l₁ of the loss gradient, .1": lambda: LocalLipschitz(0.1, norm=math.inf, squared=False),
        "edges, 1": lambda: EdgeAlignment(1.0),
        "all classes to their means, 1": lambda: PerceptualAlignment(1.0, means),
        "linear regions .1, margin 2, weight .3": lambda: LinearRegions(0.3, region=0.1, margin=2.0, candidates=10),
        "TRADES, l₂, 1.5, weight 3": lambda: TRADES(3.0, epsilon=1.5, norm=2, steps=5),
        "PGD, l₂, 1.5": {"attack": "pgd-l2", "epsilon": 1.5, "steps": 5},
    }
    test = images(False, 1_000)
    Comparison((x, y), test, network, methods, steps=500, batch=100, rate=3e-3).run(*arguments())


if __name__ == "__main__":
    main()
