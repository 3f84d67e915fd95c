"""The ways in which a cohort can be trained: what the strength of each is, which are sensible, and what it adds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captum_alignment._optional import WhenUsed
from captum_alignment.study.fit._recipes import (
    PGD_STEPS,
    Lesson,
    MakeRecipe,
    Recipe,
    Teach,
    adversarial,
    distilled,
    interpreted,
    regularized,
)

# The command line lists trainings before anything that is slow is needed.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from captum_alignment import training
    from captum_alignment.study.load import Split
else:
    torch, training = WhenUsed("torch"), WhenUsed("captum_alignment.training")

#: Weights of the regularizers whose strength is a distance.
_MARGIN_WEIGHT, _TRADES_WEIGHT, _REGION_WEIGHT = 1.0, 3.0, 0.3


@dataclass(frozen=True)
class Training:
    """A way of training whose strength 0 is plain training.

    Attributes:
        title: for readers. symbol: of its strength. what: what the strength is. source: who proposed it.
        small: strengths for images of 8 x 8 pixels. large: for larger ones.
        recipe: what it adds to plain training at a strength above 0.
    """

    title: str
    symbol: str
    what: str
    source: str
    small: tuple[float, ...]
    large: tuple[float, ...]
    recipe: MakeRecipe


def make_recipe(method: str, strength: float, samples: Split, teach: Teach, folder: Path) -> Recipe:
    """What the training ``method`` adds to plain training at ``strength``; nothing at strength 0, whatever it is.

    Args:
        teach: trains the other network that distillation and interpretation targets need.
        folder: where target maps are kept.
    """
    return Recipe() if strength == 0 else TRAININGS[method].recipe(strength, Lesson(samples, teach, folder))


def _interpretation(targets: str, recipe: MakeRecipe) -> Training:
    return Training(
        f"Interpretation Regularization, {targets}",
        "λ",
        "weight of the direction term; the magnitude's is a twentieth of it",
        "Noack et al. 2019",
        (0.0, 0.3, 1.0, 3.0),
        (0.0, 1.0, 3.0),
        recipe,
    )


def _class_means(samples: Split) -> Tensor:
    counts = samples.labels.bincount()
    if not counts.all():
        raise ValueError(f"perceptual: got no training image of class {int(counts.argmin())}, expected some of each")
    return torch.stack([samples.images[samples.labels == label].mean(0) for label in range(len(counts))])


#: Plain training, which is every other one at strength 0.
STANDARD = "standard"
TRAININGS: dict[str, Training] = {
    "lipschitz": Training(
        "local Lipschitz regularization",
        "λ",
        "weight of ‖∇ CE‖² per sample",
        "Etmann et al. 2019",
        (0.0, 0.03, 0.1, 0.3, 1.0, 3.0),
        (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        regularized(lambda weight, _: training.LocalLipschitz(weight)),
    ),
    "l1": Training(
        "l₁ norm of the loss gradient",
        "λ",
        "weight of ‖∇ CE‖₁ per sample",
        "Rodríguez-Muñoz et al. 2024",
        (0.0, 0.01, 0.03, 0.1),
        (0.0, 0.01, 0.03, 0.1),
        regularized(lambda weight, _: training.LocalLipschitz(weight, norm=math.inf, squared=False)),
    ),
    "jacobian": Training(
        "Jacobian regularization",
        "λ",
        "weight of half the squared norm of the Jacobian",
        "Hoffman et al. 2019",
        (0.0, 0.001, 0.003, 0.01, 0.03),
        (0.0, 0.003, 0.01, 0.03, 0.1),
        regularized(lambda weight, _: training.JacobianRegularizer(weight)),
    ),
    "interpretation": _interpretation(
        "SmoothGrad of a plain network", interpreted(robust=False, method="smoothgrad", threshold=1.25)
    ),
    "interpretation-robust": _interpretation(
        "gradient of a robust network", interpreted(robust=True, method="gradient", threshold=1.0)
    ),
    "interpretation-robust-smooth": _interpretation(
        "SmoothGrad of a robust network", interpreted(robust=True, method="smoothgrad", threshold=1.0)
    ),
    "interpretation-permuted": _interpretation(
        "permuted targets (control)", interpreted(robust=True, method="smoothgrad", threshold=1.0, permuted=1.0)
    ),
    "perceptual": Training(
        "perceptual alignment with class means",
        "λ",
        "weight of 1 − cos between each class's gradient and the way to its mean",
        "Ganz et al. 2023",
        (0.0, 0.1, 0.3, 1.0, 3.0),
        (0.0, 0.3, 1.0, 3.0),
        regularized(lambda weight, samples: training.PerceptualAlignment(weight, _class_means(samples))),
    ),
    "edges": Training(
        "gradients on edges",
        "λ",
        "weight of 1 − cos between the sizes of the gradient and the edges",
        "after Rodríguez-Muñoz et al. 2024",
        (0.0, 0.1, 0.3, 1.0),
        (0.0, 0.1, 0.3, 1.0),
        regularized(lambda weight, _: training.EdgeAlignment(weight)),
    ),
    "large-margin": Training(
        "large margin, training for ρ̃",
        "γ",
        "linearized robustness below which a sample is penalised",
        "Elsayed et al. 2018",
        (0.0, 0.1, 0.2, 0.4, 0.8),
        (0.0, 0.5, 1.0, 2.0),
        regularized(lambda margin, _: training.LargeMargin(_MARGIN_WEIGHT, margin=margin, candidates=3)),
    ),
    "linear-regions": Training(
        "large linear regions",
        "γ",
        "distance to kinks and boundaries below which a sample is penalised",
        "Croce et al. 2019",
        (0.0, 0.1, 0.2, 0.4),
        (0.0, 0.3, 1.0),
        regularized(lambda size, _: training.LinearRegions(_REGION_WEIGHT, region=size, margin=size, candidates=10)),
    ),
    "trades": Training(
        "TRADES, l₂",
        "ε",
        "radius of the examples, 7 steps; the term has the weight 3",
        "Zhang et al. 2019",
        (0.0, 0.1, 0.2, 0.4, 0.8),
        (0.0, 0.5, 1.0, 1.5),
        regularized(lambda radius, _: training.TRADES(_TRADES_WEIGHT, epsilon=radius, norm=2, steps=PGD_STEPS)),
    ),
    "pgd-l2": Training(
        "adversarial training, l₂",
        "ε",
        "radius of the PGD examples, 7 steps",
        "Madry et al. 2018, Zeng et al. 2021",
        (0.0, 0.1, 0.2, 0.4, 0.8),
        (0.0, 0.5, 1.0, 1.5),
        adversarial("pgd-l2"),
    ),
    "pgd-linf": Training(
        "adversarial training, l∞",
        "ε",
        "radius of the PGD examples, 7 steps",
        "Madry et al. 2018, Zeng et al. 2021",
        (0.0, 0.03, 0.06, 0.1, 0.2),
        (0.0, 0.05, 0.1, 0.2),
        adversarial("pgd-linf"),
    ),
    "distillation": Training(
        "defensive distillation",
        "T",
        "temperature of teacher and student",
        "Papernot et al. 2016",
        (0.0, 2.0, 5.0, 10.0, 20.0),
        (0.0, 5.0, 20.0, 50.0),
        distilled,
    ),
}
