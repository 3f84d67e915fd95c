"""Everything that is measured on one batch of images."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.study._explain import explain

T = TypeVar("T")

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Values of the images of one automatic batch on a CPU, whose memory ends without an error that could be caught.
_CPU_VALUES = 2**21


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured: the attacks, as `adversarial_distance` takes them, the norm of perturbations, the bounds of
    values, and how many rivals are searched (None: all)."""

    attacks: Any
    norm: float
    bounds: tuple[float, float]
    candidates: int | None


def measure(model: Any, images: Tensor, protocol: Protocol) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """One row per image (N, C, H, W), and its maps on the CPU, shaped like the images.

    Returns:
        A table: prediction, the scalars of `linear_analysis`, distance (the smallest, refined; inf where no attack
        succeeded), attack (whose it is), distance_<attack> (verified, unrefined), and what `explain` adds.
        The maps: gradient, binarized_gradient, adversarial.
    """
    analysis = linear_analysis(model, images, norm=protocol.norm, candidates=protocol.candidates)
    with warnings.catch_warnings():  # the records say it for every sample
        warnings.filterwarnings("ignore", "no adversarial for|the distance of", UserWarning)
        found = adversarial_distance(
            model, images, attacks=protocol.attacks, norm=protocol.norm, bounds=protocol.bounds
        )
    distances = found.to_dataframe().rename(columns={name: f"distance_{name}" for name in found.names})
    explained = explain(model, images, analysis, found.adversarials, norm=protocol.norm)
    table = pd.concat([analysis.to_dataframe(), distances, explained], axis=1).rename(columns={"target": "prediction"})
    maps = {
        "gradient": analysis.gradient,
        "binarized_gradient": analysis.binarized_gradient,
        "adversarial": found.adversarials,
    }
    return table, {name: tensor.detach().cpu() for name, tensor in maps.items()}


@torch.no_grad()
def usable_scores(model: Any, images: Tensor) -> Tensor:
    """Which images (N,) have scores that mean something; NaN and +inf do not, -inf is a masked class."""
    scores = model(images).reshape(len(images), -1)
    return ~(scores.isnan() | (scores == torch.inf)).any(1)


class Autocast(nn.Module):
    """``model`` under autocast to ``dtype``, its scores in float32."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, self.dtype):
            scores = self.model(images)
        return scores.float() if isinstance(scores, Tensor) else scores


class BatchSize:
    """How many samples go through the model at once; "auto" starts large and is halved when memory does not suffice."""

    def __init__(self, size: int | str, values: int, device: torch.device) -> None:
        self.automatic = size == "auto"
        cpu = device.type == "cpu"
        self.size = (max(1, _CPU_VALUES // values) if cpu else 2**16) if isinstance(size, str) else size

    def over(self, samples: Sequence[T], function: Callable[[Sequence[T]], Any]) -> Iterator[Any]:
        """``function`` of consecutive batches of ``samples``, each as large as memory allows.

        Raises:
            MemoryError: a single sample, or a batch of a given size, is too large.
        """
        start = 0
        while start < len(samples):
            batch = samples[start : start + self.size]
            try:
                result = function(batch)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if not self.automatic or len(batch) == 1:
                    way_out = "no smaller batch is possible" if len(batch) == 1 else "use a smaller one, or 'auto'"
                    raise MemoryError(f"batch_size: {len(batch)} samples do not fit into memory; {way_out}") from error
                self.size = len(batch) // 2
            else:
                start += len(batch)
                yield result
                continue
            # Outside the handler, whose traceback holds the tensors that did not fit.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a RuntimeError that only its text tells from others.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error)


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Every module of ``model`` in evaluation mode, and afterwards as it was."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
