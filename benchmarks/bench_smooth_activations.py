"""Does a penalty on the loss gradient come close to PGD training where activations are smooth, and not with ReLU?

That is what Rodríguez-Muñoz et al. (2024, arXiv 2409.20139) find on ImageNet. Here: scikit-learn's digits, a small CNN
with ReLU, GELU or SiLU, trained plainly, with the l_1 norm of the loss gradient (the dual of l_inf), with its squared
l_2 norm, and on l_inf PGD examples. Of every penalty the weight with the largest PGD accuracy on validation images;
the table is of test images: the share that is right and has no adversarial within eps by the "fast"
portfolio. Means over training seeds, as many as the argument says, with Student's t; the last column is, seed by seed,
what PGD training has more at EPSILON.
"""

import math
import sys

import torch
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from captum_alignment import adversarial_distance
from captum_alignment.training import LocalLipschitz, adversarial_examples

STEPS, BATCH, SEEDS, EPSILON = 400, 50, 3, 0.1
digits = load_digits()
order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))
images = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1) / 16
labels = torch.tensor(digits.target)[order]
TRAIN, VALIDATION, TEST = ((images[part], labels[part]) for part in (slice(1400), slice(1400, 1600), slice(1600, None)))

ACTIVATIONS = {"ReLU": nn.ReLU, "GELU": nn.GELU, "SiLU": nn.SiLU}
PENALTIES = {
    "l_1 of the loss gradient": [LocalLipschitz(w, norm=math.inf, squared=False) for w in (0.1, 0.3, 1.0)],
    "squared l_2": [LocalLipschitz(w) for w in (0.1, 0.3, 1.0, 3.0)],
}


def train(activation, seed, penalty=None, pgd=False):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), activation(), nn.Conv2d(16, 32, 3, stride=2, padding=1), activation(),
        nn.Flatten(), nn.Linear(512, 64), activation(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(TRAIN[0]), (BATCH,), generator=generator)
        x, y = TRAIN[0][rows], TRAIN[1][rows]
        if pgd:
            x = adversarial_examples(model, x, y, attack="pgd-linf", epsilon=EPSILON, steps=7, generator=generator)
        loss = F.cross_entropy(model(x), y)
        if penalty is not None:
            loss = loss + penalty(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def right(model, x, y):
    return model(x).argmax(1) == y


def validated(model):
    x, y = VALIDATION
    generator = torch.Generator().manual_seed(0)
    near = adversarial_examples(model, x, y, attack="pgd-linf", epsilon=EPSILON, steps=20, generator=generator)
    return float(right(model, near, y).double().mean())


def tested(model):
    """Accuracy within 0, half of EPSILON and EPSILON."""
    x, y = TEST
    distance = adversarial_distance(model, x, attacks="fast", norm=math.inf).distance
    good = right(model, x, y)
    return [float((good & (distance > eps)).double().mean()) for eps in (0, EPSILON / 2, EPSILON)]


def spread(values):
    half = student.ppf(0.975, len(values) - 1) * values.std() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{100 * values.mean():.1f} ± {100 * half:.1f}"


def main():
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
    print(f"{STEPS} steps of {BATCH}, {len(seeds)} seeds, {len(TEST[0])} test images, torch {torch.__version__}\n")
    print(f"| activation | training | weight | accuracy | within {EPSILON / 2:g} | within {EPSILON:g} | PGD has more |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, activation in ACTIVATIONS.items():
        pgd = torch.tensor([tested(train(activation, seed, pgd=True)) for seed in seeds])
        rows = {("PGD", ""): pgd, ("plain", ""): torch.tensor([tested(train(activation, seed)) for seed in seeds])}
        for title, penalties in PENALTIES.items():
            trained = [[train(activation, seed, penalty) for seed in seeds] for penalty in penalties]
            means = [sum(map(validated, models)) for models in trained]
            best = max(range(len(means)), key=means.__getitem__)
            rows[title, f"{penalties[best].weight:g}"] = torch.tensor([tested(model) for model in trained[best]])
        for (title, weight), found in rows.items():
            numbers = " | ".join(map(spread, found.T))
            print(f"| {name} | {title} | {weight} | {numbers} | {spread((pgd - found)[:, 2])} |", flush=True)


if __name__ == "__main__":
    main()
