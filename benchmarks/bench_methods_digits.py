"""What do the ways of training do on scikit-learn's digits? A small CNN, short trainings, medians over held-out images.

Per method: accuracy, the smallest l_2 distance that the "fast" portfolio finds, linearized robustness, alignment and
its ratio to chance, and the radius min(nearest kink, linearized robustness) that is certified without any further
bound. Means over training seeds, as many as the argument says, with the least and greatest robustness. A long training
may rank the methods otherwise.
"""

import math
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import alignment_null
from captum_alignment.training import (
    TRADES,
    EdgeAlignment,
    JacobianRegularizer,
    KinkedUnits,
    LargeMargin,
    LinearRegions,
    LocalLipschitz,
    PerceptualAlignment,
    adversarial_examples,
)

STEPS, BATCH, SEEDS = 300, 50, 1
digits = load_digits()
order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))
images = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1) / 16
labels = torch.tensor(digits.target)[order]
train_x, train_y, test_x, test_y = images[:1400], labels[:1400], images[1400:], labels[1400:]
means = torch.stack([train_x[train_y == c].mean(0) for c in range(10)])

METHODS = {
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
    "PGD, l_2, .5": "pgd",
}


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def train(method, seed):
    model = net(seed)
    regularizer = method() if callable(method) else None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(train_x), (BATCH,), generator=generator)
        x, y = train_x[rows], train_y[rows]
        if method == "pgd":
            x = adversarial_examples(model, x, y, attack="pgd-l2", epsilon=0.5, steps=5, generator=generator)
        loss = F.cross_entropy(model(x), y)
        if regularizer is not None:
            loss = loss + regularizer(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def certified(model, x, robustness):
    """min(distance to the nearest kink, rho~) of each image: a lower bound of its robustness."""
    leaf = x.clone().requires_grad_()
    with KinkedUnits() as units:
        model(leaf)
    z = torch.cat([u.flatten(1) for u in units.found], 1)
    rows = torch.eye(z.shape[1])
    (g,) = torch.autograd.grad(z.sum(0), leaf, rows, is_grads_batched=True)
    kinks = (z.detach().abs() / g.flatten(2).norm(dim=2).T).amin(1)
    return torch.minimum(kinks, robustness)


def measure(model):
    x = test_x[:100]
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).double().mean().item()
    analysis = linear_analysis(model, x)
    null = alignment_null(x, analysis.gradient)
    return (
        accuracy,
        adversarial_distance(model, x, attacks="fast").distance.median().item(),
        analysis.linearized_robustness.median().item(),
        analysis.alignment.median().item(),
        (null.alignment.median() / null.null.median()).item(),
        certified(model, x, analysis.linearized_robustness).median().item(),
    )


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    print(f"{STEPS} steps of {BATCH}, {seeds} seeds, torch {torch.__version__}\n")
    print("| training | accuracy | ρ | (seeds) | ρ̃ | α | α / chance | certified |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, method in METHODS.items():
        rows = torch.tensor([measure(train(method, seed)) for seed in range(seeds)])
        accuracy, rho, linear, alpha, ratio, radius = rows.mean(0).tolist()
        spread = f"{rows[:, 1].min():.2f} to {rows[:, 1].max():.2f}"
        numbers = f"{linear:.3f} | {alpha:.3f} | {ratio:.2f} | {radius:.1e}"
        print(f"| {name} | {accuracy:.1%} | {rho:.3f} | {spread} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
