"""The ways in which a cohort can be trained: what the strength of each is, and which strengths are sensible."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way of training whose strength 0 is plain training.

    Attributes:
        title: for readers. symbol: of its strength. what: what the strength is. source: who proposed it.
        small: strengths for images of 8 x 8 pixels. large: for larger ones.
    """

    title: str
    symbol: str
    what: str
    source: str
    small: tuple[float, ...]
    large: tuple[float, ...]


def _interpretation(targets: str) -> Method:
    return Method(
        f"Interpretation Regularization, {targets}",
        "λ",
        "weight of the direction term; the magnitude's is a twentieth of it",
        "Noack et al. 2019",
        (0.0, 0.3, 1.0, 3.0),
        (0.0, 1.0, 3.0),
    )


TRAININGS: dict[str, Method] = {
    "lipschitz": Method(
        "local Lipschitz regularization",
        "λ",
        "weight of ‖∇ CE‖² per sample",
        "Etmann et al. 2019",
        (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    ),
    "jacobian": Method(
        "Jacobian regularization",
        "λ",
        "weight of half the squared norm of the Jacobian",
        "Hoffman et al. 2019",
        (0.0, 0.001, 0.003, 0.01, 0.03),
        (0.0, 0.003, 0.01, 0.03, 0.1),
    ),
    "interpretation": _interpretation("SmoothGrad of a plain network"),
    "interpretation-robust": _interpretation("gradient of a robust network"),
    "interpretation-robust-smooth": _interpretation("SmoothGrad of a robust network"),
    "interpretation-permuted": _interpretation("permuted targets (control)"),
    "large-margin": Method(
        "large margin, training for ρ̃",
        "γ",
        "linearized robustness below which a sample is penalised",
        "Elsayed et al. 2018",
        (0.0, 0.1, 0.2, 0.4, 0.8),
        (0.0, 0.5, 1.0, 2.0),
    ),
    "pgd-l2": Method(
        "adversarial training, l₂",
        "ε",
        "radius of the PGD examples, 7 steps",
        "Madry et al. 2018, Zeng et al. 2021",
        (0.0, 0.1, 0.2, 0.4, 0.8),
        (0.0, 0.5, 1.0, 1.5),
    ),
    "pgd-linf": Method(
        "adversarial training, l∞",
        "ε",
        "radius of the PGD examples, 7 steps",
        "Madry et al. 2018, Zeng et al. 2021",
        (0.0, 0.03, 0.06, 0.1, 0.2),
        (0.0, 0.05, 0.1, 0.2),
    ),
    "distillation": Method(
        "defensive distillation",
        "T",
        "temperature of teacher and student",
        "Papernot et al. 2016",
        (0.0, 2.0, 5.0, 10.0, 20.0),
        (0.0, 5.0, 20.0, 50.0),
    ),
}
