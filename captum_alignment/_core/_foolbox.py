"""The only module that runs Foolbox attacks: it isolates the user's model from them."""

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_alignment._core._failure import ModelFailure
from captum_alignment._core._foolbox_names import (
    Attack,
    FixedEpsilonAttack,
    Misclassification,
    Model,
    PyTorchModel,
    Repeated,
    TargetedMisclassification,
    get_criterion,
)
from captum_alignment._core._inputs import (
    ForwardFunc,
    Tensors,
    accumulation_dtype,
    flatten,
    take,
    unflatten,
)
from captum_alignment._core._random import seeded
from captum_alignment._core._scores import run_scores

Bounds: TypeAlias = tuple[float, float]
AttackLike: TypeAlias = Attack | Callable[[Any, Tensor, Tensor], Tensor]

NO_GRAPH = (
    "forward_func: its scores do not depend on the inputs through autograd (a detach, no_grad or argmax inside?), so "
    "they have no gradient"
)


class Passes:
    """How many samples went forward through a model, and how many gradients came back."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def on_backward(self, grad: Tensor) -> None:
        """A hook of the scores: it sees every gradient that passes through them."""
        self.backward += len(grad)


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
        if not ctx.scores.requires_grad:
            raise ValueError(NO_GRAPH)
        try:  # the graph is kept, so that an attack may ask for several gradients of one forward pass
            (grad,) = torch.autograd.grad(ctx.scores, ctx.leaf, grad_scores, retain_graph=True, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelFailure(f"forward_func: its backward pass raised {type(error).__name__}: {error}") from error
        if grad is None:
            raise ValueError(NO_GRAPH)
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

    One input keeps its shape (N, ...); several, and one (N,), are flattened and joined to (N, D). Halves are attacked
    in float32 and rounded where the model is called.

    Attributes:
        passes: counts what goes through this model and all its subsets.
        free: where features may change, bool like ``packed``; None is everywhere. The model sees the inputs elsewhere.
        rounding: by how much (N,) another class must lead, so that rounding does not decide; 0 at first.
        roomy: a call may take more rows than there are samples; not where the caller limits its batches.
    """

    roomy = True

    def __init__(
        self, forward_func: ForwardFunc, inputs: Tensors, args: Any, bounds: Bounds, free: Tensor | None = None
    ) -> None:
        self.forward_func, self.inputs, self.args, self.free = forward_func, inputs, args, free
        self.packed = self.pack(inputs)
        self.module = _Scores(self.scores)
        self.passes = Passes()
        self.rounding = torch.zeros(len(self.packed), device=self.packed.device)
        super().__init__(self.module, bounds=bounds, device=inputs[0].device)
        self._model = self._run

    def pack(self, tensors: Tensors) -> Tensor:
        """``tensors`` as the one tensor that attacks see, in at least float32."""
        dtype = accumulation_dtype(*(t.dtype for t in tensors))
        packed = flatten(tensors, dtype) if are_joined(tensors) else tensors[0].to(dtype)
        return packed.detach().as_subclass(Tensor)  # Foolbox knows no subclass

    def unpack(self, packed: Tensor) -> Tensors:
        """The inverse of `pack`, in the dtypes of the inputs."""
        if are_joined(self.inputs):
            return unflatten(packed, self.inputs)
        return (packed.to(self.inputs[0].dtype),)

    def subset(self, index: Tensor) -> "ScoresModel":
        """The model of the samples ``index`` alone, with their share of the additional arguments."""
        n = len(self.inputs[0])
        part = copy.copy(self)  # Foolbox's constructor takes longer than a small network
        part.inputs, part.args = take(self.inputs, index, n), take(self.args, index, n)
        part.free = None if self.free is None else self.free[index]
        part.packed, part.rounding = part.pack(part.inputs), self.rounding[index]
        part.module, part._model = _Scores(part.scores), part._run
        return part

    def _run(self, packed: Tensor) -> Tensor:
        """What Foolbox calls: a graph where ``packed`` requires a gradient, whatever the caller's grad mode."""
        with torch.set_grad_enabled(packed.requires_grad):
            return self.module(packed)

    def allowed(self, packed: Tensor) -> Tensor:
        """``packed`` where features may change, the inputs elsewhere."""
        return packed if self.free is None else torch.where(self.free, packed, self.packed)

    def scores(self, packed: Tensor) -> Tensor:
        """Scores (N, K) on the graph of ``packed``; their values are not looked at.

        Raises:
            ModelFailure: what the user's model raised on finite images of the right shape.
        """
        n = len(self.inputs[0])
        if len(packed) != n and (self.free is not None or _has_rows(self.args, n)):
            raise ValueError(
                f"feature_mask or additional_forward_args: hold one entry for each of {n} samples, but the attack "
                f"calls the model with {len(packed)}; pass internal_batch_size=1 or arguments that all samples share"
            )
        self.passes.forward += len(packed)
        try:
            scores = run_scores(self.forward_func, self.unpack(self.allowed(packed)), self.args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if packed.shape[1:] != self.packed.shape[1:] or not packed.isfinite().all():
                raise  # the attack's fault
            raise ModelFailure(f"forward_func raised {type(error).__name__}: {error}") from error
        if scores.requires_grad:
            scores.register_hook(self.passes.on_backward)
        return scores


def are_joined(tensors: Tensors) -> bool:
    """Whether attacks see ``tensors`` as one vector per sample, not as they are."""
    return len(tensors) > 1 or any(tensor.ndim == 1 for tensor in tensors)


def _has_rows(args: Any, n: int) -> bool:
    values = args if isinstance(args, tuple) else (args,)
    return any(isinstance(value, Tensor) and value.ndim > 0 and len(value) == n for value in values)


def subset(model: Model, index: Tensor) -> Model:
    """``model`` for the samples ``index``: what an attack calls after it dropped finished samples."""
    return model.subset(index) if isinstance(model, ScoresModel) else model


def score_function(model: Model) -> Callable[[Tensor], Tensor]:
    """``model`` as a function of torch tensors for `ScoreGraph`, without the detour that protects parameters."""
    if isinstance(model, ScoresModel):
        return model.scores

    def scores(x: Tensor) -> Tensor:
        found = model(x)
        if found.ndim != 2 or found.shape[1] < 2:
            raise ValueError(
                f"model: returned scores of shape {tuple(found.shape)}, expected (N, K >= 2), which Foolbox's criteria "
                "compare; captum_alignment.adversarial_distance takes binary classifiers of one score"
            )
        return found

    return scores


def class_to_leave(criterion: Any) -> Tensor:
    """The labels (N,) of a `Misclassification` criterion, or of the labels that Foolbox accepts in its place."""
    criterion = get_criterion(criterion)
    if not isinstance(criterion, Misclassification):
        raise ValueError(f"criterion: got {criterion!r}, expected Misclassification (the attack is untargeted)")
    return criterion.labels.raw.long()


def class_to_reach(criterion: Any) -> Tensor | None:
    """The classes (N,) of a `TargetedMisclassification` criterion; None for another."""
    criterion = get_criterion(criterion)
    return criterion.target_classes.raw.long() if isinstance(criterion, TargetedMisclassification) else None


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
