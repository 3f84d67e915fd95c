"""What do the ways of training do on scikit-learn's digits? A small CNN, short trainings, medians over held-out images.

Per method: accuracy, the smallest l_2 distance that the "fast" portfolio finds, the certified distance of ten images,
linearized robustness, alignment and its ratio to chance. Means over training seeds, as many as the argument says, with
Student's 95 % intervals. A long training may rank the methods otherwise.
"""

import math

import torch
from sklearn.datasets import load_digits
from torch import nn

from benchmarks._methods import Comparison, arguments
from captum_alignment.training import (
    TRADES,
    EdgeAlignment,
    JacobianRegularizer,
    LargeMargin,
    LinearRegions,
    LocalLipschitz,
    PerceptualAlignment,
)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def main() -> None:
    digits = load_digits()
    order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1) / 16
    y = torch.tensor(digits.target)[order]
    means = torch.stack([x[:1400][y[:1400] == c].mean(0) for c in range(10)])
    methods = {
        "plain": None,
        "local Lipschitz, weight .3": lambda: LocalLipschitz(0.3),
        "l_1 of the loss gradient, .03": lambda: LocalLipschitz(0.03, norm=math.inf, squared=False),
        "l_1 of the loss gradient, .1": lambda: LocalLipschitz(0.1, norm=math.inf, squared=False),
        "Jacobian, .01": lambda: JacobianRegularizer(0.01),
        "large margin 1, weight 4": lambda: LargeMargin(4.0, margin=1.0),
        "edges, .3": lambda: EdgeAlignment(0.3),
        "edges, 1": lambda: EdgeAlignment(1.0),
        "all classes to their means, .3": lambda: PerceptualAlignment(0.3, means),
        "all classes to their means, 1": lambda: PerceptualAlignment(1.0, means),
        "linear regions .1, margin 1, weight .3": lambda: LinearRegions(0.3, region=0.1, margin=1.0, candidates=10),
        "TRADES, l_2, .5, weight 1": lambda: TRADES(1.0, epsilon=0.5, norm=2, steps=5),
        "TRADES, l_2, .5, weight 3": lambda: TRADES(3.0, epsilon=0.5, norm=2, steps=5),
        "PGD, l_2, .5": {"attack": "pgd-l2", "epsilon": 0.5, "steps": 5},
    }
    data = (x[:1400], y[:1400]), (x[1400:], y[1400:])
    Comparison(*data, network, methods, steps=300, batch=50).run(*arguments())


if __name__ == "__main__":
    main()
