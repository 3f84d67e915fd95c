"""How a network is trained."""

from dataclasses import dataclass
from typing import Protocol


class Training(Protocol):
    """How a network is trained; `StudyConfig` and `Retraining` say so."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def decay_every(self) -> int | None: ...
    @property
    def weight_decay(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How a network is trained where no study says it.

    Attributes:
        optimizer: "adam" or "sgd" (momentum .9). learning_rate decays along a cosine to 0, or by 10 every
            ``decay_every`` epochs where that is given.
        augment: flip images at random and shift them by up to 4 pixels, before every step.
    """

    epochs: int = 15
    batch_size: int = 50
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    decay_every: int | None = None
    weight_decay: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "decay_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer: got {self.optimizer!r}, expected 'adam' or 'sgd'")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: got {self.learning_rate}, expected a number > 0")
