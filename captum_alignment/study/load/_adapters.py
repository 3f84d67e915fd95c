"""What stands between a model and whoever calls it: normalisation, logits, precision, evaluation mode."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel: images (N, C, H, W) in [0, 1] to what the next layer was trained on.

    Raises:
        ValueError: mean and std that are no numbers, differ in length, or a std that is not positive; in the forward
            pass, images of another number of channels (a single mean serves any).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std):
            raise ValueError(f"--mean: got {len(mean)} values and {len(std)} of --std, expected one each per channel")
        if not all(map(math.isfinite, mean)):
            raise ValueError(f"--mean: got {_listed(mean)}, expected finite numbers")
        if not all(math.isfinite(value) and value > 0 for value in std):
            raise ValueError(f"--std: got {_listed(std)}, expected numbers > 0")
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        channels = len(self.mean)
        if channels not in (1, images.shape[-3]):
            raise ValueError(f"--mean: got {channels} values, expected {images.shape[-3]}, the channels of the images")
        return (images - self.mean) / self.std


class Logits(nn.Module):
    """The scores (N, K) of a model that returns an object with ``.logits``, as Hugging Face's image classifiers do.

    ``evaluate(Logits(model), ...)``; further arguments go on to the model.

    Raises:
        TypeError: in the forward pass, an output without a tensor ``.logits``.

    >>> from types import SimpleNamespace
    >>> class Theirs(torch.nn.Module):
    ...     def forward(self, x):
    ...         return SimpleNamespace(logits=x.flatten(1))
    >>> Logits(Theirs())(torch.rand(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = self.model(inputs, *args, **kwargs)
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"model: its output is of type {type(output).__name__} without a tensor .logits, expected the output "
                "of an image classifier (a model that returns scores needs no Logits)"
            )
        return logits


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


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


@contextmanager
def without_exit() -> Iterator[None]:
    """`RuntimeError` where the model or the data set calls ``exit()``, which would end the process without a word."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"model: it, or the dataset, called exit({error.code!r}) while it was evaluated") from error
