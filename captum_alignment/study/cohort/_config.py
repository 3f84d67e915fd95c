"""What a study is: its configuration, its defaults per data set, and its presets."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from captum_alignment.robust import resolve_attacks
from captum_alignment.study.fit import TRAININGS, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class StudyConfig(TrainingConfig):
    """Everything that determines a study's numbers; two studies with equal configurations give the same records.

    Attributes:
        strengths: of the regularizer, e.g. per-sample lambda; 0 is plain training. One model each and per seed.
        seed: of the choice of samples and of the first cohort's training; ``seeds`` cohorts use seed, seed + 1, ...

    Raises:
        ValueError: a value out of range.
    """

    dataset: str = field(
        default="digits",
        metadata={
            "help": "what the networks are trained on; digits need no download",
            "metavar": "NAME",
            "flags": ("--data", "--dataset"),
        },
    )
    regularizer: str = field(
        default="lipschitz",
        metadata={"help": "how the networks are trained; several are compared", "metavar": "NAME", "nargs": "+"},
    )
    strengths: tuple[float, ...] = field(
        default=TRAININGS["lipschitz"].small,
        metadata={"help": "of a single regularizer, one network each (default: by regularizer)", "metavar": "X"},
    )
    epochs: int = field(
        default=30,
        metadata={"help": "passes over the training samples (default: by data set; 30 on the digits)", "metavar": "N"},
    )
    train_size: int | None = field(
        default=None,
        metadata={"help": "training samples (default: all digits, else 10000)", "metavar": "N", "none": "all"},
    )
    eval_size: int | None = field(
        default=200, metadata={"help": "held-out samples that are measured", "metavar": "N", "none": "all"}
    )
    attacks: tuple[str, ...] = field(
        default=("gradient", "deepfool", "ddn", "carlini-wagner"),
        metadata={"help": "names, or FILE.py:NAME", "metavar": "NAME"},
    )
    seed: int = field(default=0, metadata={"help": "of the choice of samples and of training", "metavar": "N"})
    seeds: int = field(default=3, metadata={"help": "train every network with that many seeds", "metavar": "N"})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("dataset", self.dataset, tuple(DATASETS))
        _check_choice("regularizer", self.regularizer, tuple(TRAININGS))
        _check_strengths(self.strengths)
        for name in ("train_size", "eval_size", "seeds"):
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

#: What `load_data` takes: its name for readers, and what differs from the defaults of `StudyConfig`, the digits'.
DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("scikit-learn’s digits", {}),
    "mnist": ("MNIST", {"epochs": 5, **_LARGER_IMAGES}),
    "fashion-mnist": ("Fashion-MNIST", {"epochs": 10, **_LARGER_IMAGES}),
    "cifar10": ("CIFAR-10", {"epochs": 30, **_LARGER_IMAGES}),
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
    _check_choice("dataset", dataset, tuple(DATASETS))
    method = options.get("regularizer", StudyConfig.regularizer)
    _check_choice("regularizer", method, tuple(TRAININGS))
    strengths = TRAININGS[method].small if dataset == "digits" else TRAININGS[method].large
    return StudyConfig(**{**DATASETS[dataset][1], "strengths": strengths, **options})


def as_options(changed: Mapping[str, Any]) -> list[str]:
    """The words of the command line that say ``changed``: fields of `StudyConfig` and their values as JSON has them."""
    words = []
    for name, value in changed.items():
        about = StudyConfig.__dataclass_fields__[name].metadata
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            values = value if isinstance(value, list) else [value]
            words += [about["none"] if one is None else _word(one) for one in values]
    return words


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    if len(set(attacks)) < len(attacks):
        raise ValueError(f"attacks: got {' '.join(attacks)}, expected each once")
    resolve_attacks(attacks, norm=2)
