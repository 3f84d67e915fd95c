"""What the comparisons of trainings share: one short training, what is measured of it, and the table over seeds.

``python -m benchmarks.bench_methods_mnist SEEDS PART …``: as many seeds, and the methods whose names contain a part.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import alignment_null
from captum_alignment.training import adversarial_examples

COLUMNS = ("accuracy", "ρ", "certified", "ρ̃", "α", "α / chance")


@dataclass(frozen=True)
class Comparison:
    """Data, a network for each seed, and the ways to train it: a regularizer, options of an attack, or None."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    network: Callable[[], nn.Module]
    methods: dict[str, Any]
    steps: int
    batch: int
    rate: float = 1e-3
    attacked: int = 100
    certified: int = 10

    def trained(self, method: Any, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model, regularizer = self.network(), method() if callable(method) else None
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.steps):
            rows = torch.randint(len(self.train[0]), (self.batch,), generator=generator)
            x, y = (part[rows] for part in self.train)
            if isinstance(method, dict):
                x = adversarial_examples(model, x, y, generator=generator, **method)
            loss = F.cross_entropy(model(x), y)
            if regularizer is not None:
                loss = loss + regularizer(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    def measured(self, model: nn.Module) -> list[float]:
        """One number for each of `COLUMNS`."""
        x = self.test[0][: self.attacked]
        with torch.no_grad():
            accuracy = (model(self.test[0]).argmax(1) == self.test[1]).double().mean()
        analysis = linear_analysis(model, x)
        null = alignment_null(x, analysis.gradient)
        lower = adversarial_distance(model, x[: self.certified], certify=True).lower_bound
        assert lower is not None
        medians = adversarial_distance(model, x).distance, lower, analysis.linearized_robustness, analysis.alignment
        ratio = null.alignment.median() / null.null.median()
        return [float(accuracy), *(float(values.median()) for values in medians), float(ratio)]

    def run(self, seeds: int = 3, *only: str) -> None:
        """Prints the table whenever a seed is complete; ``only`` methods whose names contain one of these parts."""
        names = [name for name in self.methods if not only or any(part in name for part in only)]
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for seed in range(seeds):
            for name, rows in found.items():
                rows.append(self.measured(self.trained(self.methods[name], seed)))
            print(f"\n{self.steps} steps of {self.batch}, {seed + 1} seeds, torch {torch.__version__}\n")
            print(f"| training | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
            for name, rows in found.items():
                print(f"| {name} | {' | '.join(map(_cell, zip(*rows, strict=True)))} |", flush=True)


def arguments() -> tuple[Any, ...]:
    """Those of `Comparison.run`, from the command line."""
    return (int(sys.argv[1]), *sys.argv[2:]) if len(sys.argv) > 1 else ()


def _cell(values: tuple[float, ...]) -> str:
    """The mean over seeds, with half of Student's 95 % interval from two seeds on."""
    seeds = torch.tensor(values, dtype=torch.float64)
    if len(values) == 1:
        return f"{float(seeds):.3g}"
    half = student.ppf(0.975, len(values) - 1) * float(seeds.std()) / len(values) ** 0.5
    return f"{float(seeds.mean()):.3g} ± {half:.2g}"
