"""What is measured of every sample, and how: the parameters of `evaluate`, the options of the command."""

import math
from dataclasses import dataclass, field
from typing import Any

EFFORTS = ("fast", "medium", "thorough")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How an evaluation measures; every field says what it is for in its metadata.

    Raises:
        ValueError: a value out of range. Attacks are resolved, and a subset drawn, when the evaluation begins.
    """

    attacks: Any = field(
        default="fast",
        metadata={"help": "names, one or more, or FILE.py:NAME", "metavar": "NAME", "nargs": "+"},
    )
    attributions: Any = field(
        default=None,
        metadata={
            "help": "attributions to compare, also FILE.py:NAME and captum.attr:NAME",
            "metavar": "NAME",
            "nargs": "+",
        },
    )
    masks: Any = field(
        default=None,
        metadata={
            "help": "folder of masks, called as the samples, against which maps of attributions are compared",
            "metavar": "DIR",
        },
    )
    norm: float = field(default=2, metadata={"help": "of perturbations: 1, 2 or inf", "metavar": "P"})
    bounds: tuple[float, float] = field(
        default=(0, 1), metadata={"help": "the least and the greatest value of an image", "metavar": "X"}
    )
    certify: str | None = field(
        default=None,
        metadata={
            "help": "bounds of ρ from below, for piecewise linear networks, with an effort: fast, medium, thorough",
            "metavar": "EFFORT",
            "none": "none",
        },
    )
    candidates: int | None = field(
        default=None, metadata={"help": "search only that many rivals", "metavar": "N", "none": "all"}
    )
    subset: int | None = field(
        default=None, metadata={"help": "samples drawn by the seed", "metavar": "N", "none": "all"}
    )
    seed: int = field(default=0, metadata={"help": "of the subset", "metavar": "N"})
    part_size: int | None = field(
        default=None,
        metadata={
            "help": "samples of a part, which is written as one file "
            "(default: 100, or 32 for images of more than 64 x 64 pixels)",
            "metavar": "N",
        },
    )
    batch_size: int | str = field(
        default="auto",
        metadata={
            "help": "samples that go through the model at once; 'auto' halves it when memory ends",
            "metavar": "N",
        },
    )
    precision: str = field(
        default="float32",
        metadata={"help": "float32 leaves the model as it is; bfloat16 and float16 run it so", "metavar": "NAME"},
    )
    strict: bool = field(default=False, metadata={"help": "stop at the first sample that cannot be measured"})
    num_workers: int = field(
        default=0,
        metadata={"help": "processes that read ahead", "metavar": "N", "flags": ("--workers", "--num-workers")},
    )

    def __post_init__(self) -> None:
        if self.norm not in (1, 2, math.inf):
            raise ValueError(f"norm: got {self.norm!r}, expected 1, 2 or inf (the norm of the perturbation)")
        if len(self.bounds) != 2 or not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds: got {tuple(self.bounds)}, expected (min, max) with min < max")
        if self.certify not in (None, *EFFORTS):
            raise ValueError(f"certify: got {self.certify!r}, expected {', '.join(EFFORTS)} or None")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: got {self.precision!r}, expected {', '.join(PRECISIONS)}")
        if self.part_size is not None and self.part_size < 1:
            raise ValueError(f"part_size: got {self.part_size}, expected at least 1, or None")
        size = self.batch_size
        if size != "auto" and (isinstance(size, (bool, str)) or size < 1):
            raise ValueError(f"batch_size: got {size!r}, expected a positive integer or 'auto'")
