"""What a study is: its configuration, its defaults per data set, and its presets."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from captum_alignment.study.evaluation import ATTACKS, PORTFOLIOS
from captum_alignment.study.fit import TRAININGS

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Everything that determines a study's numbers; two studies with equal configurations give the same records.

    Attributes:
        dataset: one of `DATASETS`.
        regularizer: one of `TRAININGS`, how the cohort is trained.
        strengths: of the regularizer, e.g. per-sample lambda; 0 is plain training. One model each and per seed.
        epochs: passes over the training samples.
        train_size, eval_size: number of samples; None is all of them.
        attacks: names out of `ATTACKS`, or one of `PORTFOLIOS` alone.
        seed: of the choice of samples and of the first cohort's training; ``seeds`` cohorts use seed, seed + 1, ...
        optimizer: "adam" or "sgd" (momentum .9). learning_rate decays along a cosine to 0, or by 10 every
            ``decay_every`` epochs where that is given.
    """

    dataset: str = "digits"
    regularizer: str = "lipschitz"
    strengths: tuple[float, ...] = TRAININGS["lipschitz"].small
    epochs: int = 30
    train_size: int | None = None
    eval_size: int | None = 200
    attacks: tuple[str, ...] = ATTACKS
    seed: int = 0
    seeds: int = 1
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    decay_every: int | None = None
    weight_decay: float = 0.0
    batch_size: int = 50

    def __post_init__(self) -> None:
        _check_choice("dataset", self.dataset, DATASETS)
        _check_choice("regularizer", self.regularizer, tuple(TRAININGS))
        _check_strengths(self.strengths)
        for name in ("epochs", "train_size", "eval_size", "seeds", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if self.eval_size is not None and self.eval_size < 2:
            raise ValueError(
                f"eval_size: got {self.eval_size}, expected at least 2 (one map's chance level is another's)"
            )
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed: got {self.seed}, expected 0 to {2**31 - 1}")
        _check_attacks(self.attacks)

    @property
    def training_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def as_dict(self) -> dict[str, Any]:
        """As JSON gives it back: lists for tuples."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


_LARGER_IMAGES = {"train_size": 10000, "learning_rate": 1e-3, "batch_size": 100}

#: What differs from the defaults of `StudyConfig`, which are those of the digits.
_DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {},
    "mnist": {"epochs": 5, **_LARGER_IMAGES},
    "fashion-mnist": {"epochs": 10, **_LARGER_IMAGES},
    "cifar10": {"epochs": 30, **_LARGER_IMAGES},
}

PRESETS: dict[str, dict[str, Any]] = {
    # The MNIST experiment of Etmann et al. 2019. Their lambda is B² = 10,000 times the per-sample one.
    "etmann-mnist": {
        "dataset": "mnist",
        "strengths": (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
        "epochs": 200,
        "train_size": None,
        "eval_size": 1000,
        "attacks": ("paper",),
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "decay_every": 80,
        "weight_decay": 1e-6,
        "batch_size": 100,
    }
}


#: The fields that the command has options for; the others follow from the preset or the data set.
OPTIONS = frozenset({"regularizer", "strengths", "epochs", "train_size", "eval_size", "attacks", "seed", "seeds"})


def make_config(*, preset: str | None = None, **options: Any) -> StudyConfig:
    """The configuration that ``options`` give, the rest from the preset, else from the data set's defaults.

    Raises:
        ValueError: an unknown preset or data set, or a value out of range, named with what was expected.
    """
    if preset is not None:
        _check_choice("preset", preset, tuple(PRESETS))
        if options.get("regularizer", "lipschitz") != PRESETS[preset].get("regularizer", "lipschitz"):
            raise ValueError(f"regularizer: got {options['regularizer']!r}, but the preset {preset} has its own")
        return StudyConfig(**{**PRESETS[preset], **options})
    dataset = options.get("dataset", StudyConfig.dataset)
    _check_choice("dataset", dataset, DATASETS)
    method = options.get("regularizer", StudyConfig.regularizer)
    _check_choice("regularizer", method, tuple(TRAININGS))
    strengths = TRAININGS[method].small if dataset == "digits" else TRAININGS[method].large
    return StudyConfig(**{**_DATASET_DEFAULTS[dataset], "strengths": strengths, **options})


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: got {value!r}, expected {' or '.join(map(repr, known))}")


def _check_strengths(strengths: tuple[float, ...]) -> None:
    if not strengths:
        raise ValueError("strengths: got none, expected at least one")
    for strength in strengths:
        if not (math.isfinite(strength) and strength >= 0):
            raise ValueError(f"strengths: got {strength:g}, expected finite numbers >= 0")
    if len(set(strengths)) < len(strengths):
        raise ValueError(f"strengths: got {' '.join(f'{strength:g}' for strength in strengths)}, expected each once")


def _check_attacks(attacks: tuple[str, ...]) -> None:
    if len(attacks) == 1 and attacks[0] in PORTFOLIOS:
        return
    if not attacks:
        raise ValueError("attacks: got none, expected at least one")
    for name in attacks:
        if name not in ATTACKS:
            known = " ".join(ATTACKS)
            raise ValueError(f"attacks: got {name!r}, expected some of {known}, or one of {' '.join(PORTFOLIOS)} alone")
    if len(set(attacks)) < len(attacks):
        raise ValueError(f"attacks: got {' '.join(attacks)}, expected each once")
