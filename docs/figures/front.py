"""The picture of the README and of the site's first page: ``python docs/figures/front.py DATA_ROOT`` (needs MNIST).

The same small network, trained twice on 10,000 images: plainly, and with local Lipschitz regularization.
"""

import sys
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import MNIST

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.training import LocalLipschitz

SHOWN = [3, 2, 1, 18, 4, 8]  # test images of the digits 0 to 5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def train(images, labels, weight, epochs=4):
    model, regularizer = network(), LocalLipschitz(weight) if weight else None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(100):
            x, y = images[part], labels[part]
            loss = F.cross_entropy(model(x), y)
            if regularizer is not None:
                loss = loss + regularizer(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def load(root, train):
    data = MNIST(root, train=train)
    return data.data.unsqueeze(1).float() / 255, data.targets


def main(root: str) -> None:
    images, labels = load(root, True)
    x, y = load(root, False)
    x, y = x[:200], y[:200]
    figure = plt.figure(figsize=(9.6, 3.7), dpi=150, layout="constrained")
    grid, scatter = figure.subfigures(1, 2, width_ratios=[2.1, 1])
    axes = grid.subplots(3, len(SHOWN), gridspec_kw={"hspace": 0.02})
    right = scatter.subplots()
    for column, sample in enumerate(SHOWN):
        axes[0, column].imshow(x[sample, 0], cmap="gray")
    rows = [("image", 0.0), ("plain", 0.0), ("regularized", 3.0)]
    for axis, (name, _) in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name)
    for row, (name, weight) in list(enumerate(rows))[1:]:
        model = train(images[:10_000], labels[:10_000], weight)
        with torch.no_grad():
            accuracy = (model(x).argmax(1) == y).float().mean()
        analysis = linear_analysis(model, x)
        distance = adversarial_distance(model, x, attacks="fast").distance
        medians = f"median rho {distance.median():.2f}, alpha {analysis.alignment.median():.2f}"
        print(f"{name}: accuracy {accuracy:.1%}, {medians}")
        for column, sample in enumerate(SHOWN):
            saliency = analysis.gradient[sample, 0]
            limit = saliency.abs().flatten().quantile(0.995)
            axes[row, column].imshow(saliency, cmap="RdBu_r", vmin=-limit, vmax=limit)
            values = f"ρ {distance[sample]:.2f}  α {analysis.alignment[sample]:.2f}"
            axes[row, column].set_xlabel(values, fontsize=7.5, labelpad=2)
        right.scatter(distance, analysis.alignment, s=9, alpha=0.7, linewidths=0, label=name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    right.set(xlabel="ρ, distance to the nearest adversarial", ylabel="α, alignment of image and saliency map")
    right.legend(frameon=False)
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "front.png")


if __name__ == "__main__":
    main(sys.argv[1])
