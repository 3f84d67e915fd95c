"""Regularizers: configured terms that are added to a training loss."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from captum_alignment._core._inputs import ForwardFunc, TensorOrTuple, Tensors, as_tensors, check_norm
from captum_alignment._core._scores import compute_scores
from captum_alignment.training._penalties import Of, check_of, gradient_size, input_gradient_penalty, loss_gradients


class Regularizer(ABC):
    """A weight times the batch mean of a penalty per sample; a subclass computes the penalty, `penalty`.

    Calling it, ``loss + regularizer(model, inputs, target)``, runs its own forward pass on a detached copy of the
    inputs. That pass draws new dropout masks, leaves the running statistics of batch norm as they are, and keeps to
    attention kernels that can be differentiated twice. Under `no_grad` and `inference_mode` it returns the value alone.
    """

    #: The key under which a training loop logs the term.
    name: ClassVar[str] = "regularizer"

    def __init__(self, weight: float):
        self.weight = check_factor(weight, "weight")

    def __call__(self, model: ForwardFunc, inputs: TensorOrTuple, target: Any, *extras: Any) -> Tensor:
        """The term, a scalar in at least float32.

        Args:
            model: any callable returning (N, K) scores, or (N,) / (N, 1) for a binary classifier.
            inputs: a floating tensor or tuple of tensors (N, ...); never modified.
            target: the class of each sample, as in Captum; None is the predicted class.
            extras: what the penalty needs beyond these.

        Raises:
            TypeError: wrong kinds of arguments; a `DataParallel` or `FullyShardedDataParallel` model.
            ValueError: empty batches, targets out of range, NaN scores.
        """
        model = _unwrapped(model)
        given = as_tensors(inputs)
        keep_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            leaves = tuple(_outside_inference(x).detach().requires_grad_() for x in given)
            with frozen_statistics(model), twice_differentiable():
                scores = compute_scores(model, leaves)
            # Gradients are taken outside autocast: https://pytorch.org/docs/stable/notes/amp_examples.html
            with torch.autocast(leaves[0].device.type, enabled=False):
                variables = leaves if isinstance(inputs, tuple) else leaves[0]
                penalties = self.penalty(scores, variables, *map(_outside_inference, (target, *extras)))
                term = self.weight * penalties.mean()
        return term if keep_graph else term.detach()

    @abstractmethod
    def penalty(self, scores: Tensor, inputs: TensorOrTuple, target: Any, *extras: Any) -> Tensor:
        """The penalty (N,) of scores (N, K) on the graph of ``inputs``."""

    #: Whether the penalty follows from the gradient of the training loss alone, so that `from_loss` can be used.
    only_needs_loss: bool = False

    def from_loss(self, loss: Tensor, inputs: TensorOrTuple, *, scale: float = 1.0) -> Tensor:
        """The term on the graph of a loss that was computed from ``inputs``: no second forward pass.

        Args:
            loss: ``scale`` times the mean over the batch of one loss per sample. Another reduction (a sum, class
                weights) changes the weight by a factor.
            inputs: the tensors, requiring grad, that the loss was computed from.
            scale: what the mean was multiplied by, e.g. by a gradient scaler. The term is free of it.

        Raises:
            TypeError: the penalty needs more than the gradient of the loss.
            ValueError: the inputs do not require grad or the loss does not depend on them.
        """
        if not self.only_needs_loss:
            raise TypeError(
                f"{self.name}: needs more than the gradient of the loss, expected a call with model and inputs"
            )
        gradients = loss_gradients(loss, as_tensors(inputs), scale=scale)
        return self.weight * self.loss_gradient_penalty(gradients).mean()

    def loss_gradient_penalty(self, gradients: Tensors) -> Tensor:
        """The penalty (N,), given each sample's loss gradient; defined where ``only_needs_loss``."""
        raise NotImplementedError


class LocalLipschitz(Regularizer):
    """Penalises the local Lipschitz constant of the loss, a score or the margin: weight · mean_i ‖∇ₓ q(x_i)‖².

    The weight multiplies a mean of per-sample penalties and so keeps its meaning when the batch size changes.

    Args:
        weight: at least 0. Inputs in [0, 1] are the usual unit; scaling the inputs by c scales the squared penalty by
            1/c².
        of: "loss", "score" or "margin".
        norm: 1, 2 or inf, the norm of perturbations; the gradient is measured in the dual norm, inf, 2 or 1.
        squared: square the norm.

    Raises:
        TypeError: the weight is not a number.
        ValueError: a negative or non-finite weight, unknown ``of`` or ``norm``.

    Etmann et al. (2019), after Drucker & LeCun (1992); see `input_gradient_penalty`.
    """

    name = "local_lipschitz"

    def __init__(self, weight: float, *, of: Of = "loss", norm: float = 2, squared: bool = True):
        super().__init__(weight)
        self.of: Of = check_of(of)
        self.norm, self.squared = check_norm(norm), squared
        self.only_needs_loss = of == "loss"

    def penalty(self, scores: Tensor, inputs: TensorOrTuple, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        return input_gradient_penalty(scores, inputs, target, of=self.of, norm=self.norm, squared=self.squared)

    def loss_gradient_penalty(self, gradients: Tensors) -> Tensor:
        return gradient_size(gradients, norm=self.norm, squared=self.squared)


def check_factor(value: Any, name: str) -> float:
    """``value`` as a float; an error unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, expected a number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: got {value!r}, expected a finite number >= 0")
    return float(value)


@contextmanager
def frozen_statistics(model: Any) -> Iterator[None]:
    """Batch norm in train mode normalises by the batch as before but does not update its running statistics."""
    owner = getattr(model, "__self__", model)
    modules = owner.modules() if isinstance(owner, nn.Module) else ()
    tracking = [m for m in modules if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def twice_differentiable():
    """A context in which attention uses the one kernel whose backward pass has a derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def _unwrapped(model: Any) -> Any:
    """The module under wrappers that allow no second forward pass or no double backward."""
    if type(model).__name__ in ("DataParallel", "FullyShardedDataParallel"):
        raise TypeError(
            f"model: got {type(model).__name__}, which cannot be differentiated twice; use one device or DDP"
        )
    if isinstance(model, DistributedDataParallel):
        return model.module
    return getattr(model, "_orig_mod", model)  # torch.compile


def _outside_inference(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
