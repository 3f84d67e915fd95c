"""How a network is trained."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained; every field says what it is for in its metadata.

    Raises:
        ValueError: a value out of range.
    """

    epochs: int = field(default=15, metadata={"help": "passes over the training images", "metavar": "N"})
    batch_size: int = field(default=50, metadata={"help": "images of a step", "metavar": "N"})
    optimizer: str = field(default="adam", metadata={"help": "adam, or sgd with momentum .9", "metavar": "NAME"})
    learning_rate: float = field(
        default=2e-3, metadata={"help": "at the beginning; it decays along a cosine to 0", "metavar": "X"}
    )
    decay_every: int | None = field(
        default=None,
        metadata={"help": "epochs after which it is divided by 10 instead", "metavar": "N", "none": "never"},
    )
    weight_decay: float = field(default=0.0, metadata={"help": "of the optimizer", "metavar": "X"})
    augment: bool = field(
        default=False, metadata={"help": "flip training images at random and shift them by up to 4 pixels"}
    )

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "decay_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer: got {self.optimizer!r}, expected 'adam' or 'sgd'")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: got {self.learning_rate}, expected a number > 0")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay: got {self.weight_decay}, expected a number >= 0")
