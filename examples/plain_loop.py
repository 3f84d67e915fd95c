"""In a plain loop: add a regularizer's term to the loss. Every regularizer has the same call."""

import torch
from digits import images_and_labels
from torch import nn
from torch.nn import functional as F

from captum_alignment import linear_analysis
from captum_alignment.training import JacobianRegularizer, LargeMargin, LocalLipschitz

images, labels = images_and_labels()


def train(regularizer, epochs=8):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for part in torch.randperm(1400).split(100):
            x, y = images[part], labels[part]
            loss = F.cross_entropy(model(x), y)
            if regularizer is not None:
                loss = loss + regularizer(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


REGULARIZERS = {
    "none": None,
    "LocalLipschitz": LocalLipschitz(0.1),
    "JacobianRegularizer": JacobianRegularizer(0.01),
    "LargeMargin": LargeMargin(1.0, margin=1.0),
    "LargeMargin, differences": LargeMargin(1.0, margin=1.0, method="finite-difference"),
}

print(f"{'regularizer':<26}{'accuracy':>9}{'median linearized robustness':>30}")
for name, regularizer in REGULARIZERS.items():
    model = train(regularizer)
    x, y = images[1400:], labels[1400:]
    accuracy = (model(x).argmax(1) == y).float().mean()
    robustness = linear_analysis(model, x).linearized_robustness.median()
    print(f"{name:<26}{accuracy:>9.1%}{robustness:>30.3f}")
