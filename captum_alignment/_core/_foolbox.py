"""The only module that runs Foolbox attacks: it isolates the user's model and re-checks every claimed adversarial."""

import math
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_alignment._core._inputs import (
    ForwardFunc,
    Tensors,
    accumulation_dtype,
    flatten,
    per_sample,
    per_sample_norm,
    take,
    unflatten,
)
from captum_alignment._core._random import seeded
from captum_alignment._core._scores import invalid, run_scores

# This module is the first to import foolbox, which imports GitPython, which refuses to load where there is no git
# executable unless told to be quiet.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # foolbox imports a namespace that scipy has deprecated
    from foolbox.attacks.base import Attack, FixedEpsilonAttack, Repeated, get_criterion
    from foolbox.criteria import Misclassification
    from foolbox.models import Model, PyTorchModel

Bounds: TypeAlias = tuple[float, float]
AttackLike: TypeAlias = Attack | Callable[[Any, Tensor, Tensor], Tensor]

#: Share of the range of the bounds that rounding may leave an adversarial outside of them; it is then clamped.
_OUTSIDE = 1e-6


class _InputGradientOnly(torch.autograd.Function):
    """Scores whose backward stops at the input.

    Attacks call ``loss.backward()``, which would fill the ``.grad`` of every parameter that requires one and spend a
    fifth of the time on it. Here the graph below the input is private and asked for the input's gradient alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scores_of: Callable[[Tensor], Tensor]) -> Tensor:  # pyright: ignore
        if not ctx.needs_input_grad[0]:
            return scores_of(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            scores = scores_of(leaf)
        ctx.leaf, ctx.scores = leaf, scores
        return scores.detach()

    @staticmethod
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        # The graph is kept, so that an attack may ask for several gradients of one forward pass.
        (grad,) = torch.autograd.grad(ctx.scores, ctx.leaf, grad_scores, retain_graph=True)
        return grad, None


class _Scores(nn.Module):
    """``forward_func`` on one packed float tensor, as the `nn.Module` that Foolbox asks for."""

    def __init__(self, scores_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._scores_of = (scores_of,)  # in a tuple: no submodule, so that nothing moves or switches the user's model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return _InputGradientOnly.apply(x, self._scores_of[0])  # pyright: ignore


class ScoresModel(PyTorchModel):
    """A Foolbox model around any ``forward_func`` and its tuple of inputs, which it sees as one tensor ``packed``.

    One input keeps its shape; several are flattened and joined to (N, D). Halves are attacked in float32 and rounded
    where the model is called.
    """

    def __init__(self, forward_func: ForwardFunc, inputs: Tensors, args: Any, bounds: Bounds) -> None:
        self.forward_func, self.inputs, self.args = forward_func, inputs, args
        self.packed = self.pack(inputs)
        self.module = _Scores(self.scores)
        super().__init__(self.module, bounds=bounds, device=inputs[0].device)

    def pack(self, tensors: Tensors) -> Tensor:
        """``tensors`` as the one tensor that attacks see, in at least float32."""
        dtype = accumulation_dtype(*(t.dtype for t in tensors))
        return tensors[0].detach().to(dtype) if len(tensors) == 1 else flatten(tensors, dtype).detach()

    def unpack(self, packed: Tensor) -> Tensors:
        """The inverse of `pack`, in the dtypes of the inputs."""
        if len(self.inputs) == 1:
            return (packed.to(self.inputs[0].dtype),)
        return unflatten(packed, self.inputs)

    def subset(self, index: Tensor) -> "ScoresModel":
        """The model of the samples ``index`` alone, with their share of the additional arguments."""
        n = len(self.inputs[0])
        return ScoresModel(self.forward_func, take(self.inputs, index, n), take(self.args, index, n), self.bounds)

    def scores(self, packed: Tensor) -> Tensor:
        """Scores (N, K) on the graph of ``packed``; their values are not looked at."""
        n = len(self.inputs[0])
        if len(packed) != n and _has_rows(self.args, n):
            raise ValueError(
                f"additional_forward_args: hold one entry for each of {n} samples, but the attack calls the model with "
                f"{len(packed)}; pass internal_batch_size=1 or arguments that all samples share"
            )
        return run_scores(self.forward_func, self.unpack(packed), self.args)


def _has_rows(args: Any, n: int) -> bool:
    values = args if isinstance(args, tuple) else (args,)
    return any(isinstance(value, Tensor) and value.ndim > 0 and len(value) == n for value in values)


def subset(model: Model, index: Tensor) -> Model:
    """``model`` for the samples ``index``: what an attack calls after it dropped finished samples."""
    return model.subset(index) if isinstance(model, ScoresModel) else model


def score_function(model: Model) -> ForwardFunc:
    """``model`` as a function of torch tensors for `ScoreGraph`, without the detour that protects parameters."""
    return model.scores if isinstance(model, ScoresModel) else model


def untargeted_labels(criterion: Any) -> Tensor:
    """The labels (N,) of a `Misclassification` criterion, or of the labels that Foolbox accepts in its place."""
    criterion = get_criterion(criterion)
    if not isinstance(criterion, Misclassification):
        raise ValueError(f"criterion: got {criterion!r}, expected Misclassification (the attack is untargeted)")
    return criterion.labels.raw


def is_fixed_epsilon(attack: AttackLike) -> bool:
    """Whether ``attack`` needs an epsilon instead of minimising the distance itself."""
    while isinstance(attack, Repeated):
        attack = attack.attack
    return isinstance(attack, FixedEpsilonAttack)


def run_attack(attack: AttackLike, model: ScoresModel, labels: Tensor, epsilon: float | None = None) -> Tensor:
    """What ``attack`` returns for ``model.packed``, unchecked but of the right shape.

    Reproducible: chance comes from a private seed, and the global generators stay where they were.
    """
    x = model.packed
    with seeded(0, x.device), torch.inference_mode(False), torch.enable_grad():
        if isinstance(attack, Attack):
            found, _, _ = attack(model, x.clone(), Misclassification(labels), epsilons=epsilon)
        else:
            found = attack(model.module, x.clone(), labels.clone())
    if not isinstance(found, Tensor) or found.shape != x.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"returned {got}, expected adversarials of shape {tuple(x.shape)}")
    return found.detach()


def unusable(model: ScoresModel, found: Tensor) -> str | None:
    """What is wrong with images that an attack returned, whatever their class; None if nothing is."""
    if not found.isfinite().all():
        return "returned NaN or infinity"
    if not _inside(model, found).all():
        return f"returned images outside the bounds {tuple(model.bounds)}"
    return None


def _inside(model: ScoresModel, found: Tensor) -> Tensor:
    """Whether images are finite and inside the bounds (N,), up to rounding."""
    low, high = model.bounds
    slack = _OUTSIDE * (high - low) if math.isfinite(high - low) else 0.0
    return ((found >= low - slack) & (found <= high + slack) & found.isfinite()).flatten(1).all(1)


def verified(model: ScoresModel, found: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """Candidates as the model sees them, and their distance (N,): inf unless finite, in bounds and of a new class."""
    x, (low, high) = model.packed, model.bounds
    inside = _inside(model, found)
    mask = per_sample(inside, x)
    # A rejected candidate may be NaN: the model is asked about the input instead.
    points = model.pack(model.unpack(torch.where(mask, found.clamp(low, high), x).to(x.dtype)))
    with torch.no_grad():
        scores = model.module(points)
    success = inside & (scores.argmax(1) != labels) & ~invalid(scores)
    distance = per_sample_norm((points - x,), norm)
    return points, torch.where(success, distance, torch.inf)
