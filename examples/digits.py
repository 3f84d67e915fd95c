"""A small network trained on scikit-learn's digits, for the other examples."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def images_and_labels() -> tuple[Tensor, Tensor]:
    """All 1797 digits (N, 1, 8, 8) in [0, 1] and their labels; the last 397 are for testing."""
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(data.target)


def trained_net(epochs: int = 30) -> nn.Module:
    """A convolutional net trained on the first 1400 digits, in eval mode."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    images, labels = images_and_labels()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(epochs):
        for part in torch.randperm(1400).split(100):
            loss = nn.functional.cross_entropy(net(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()
