"""Defensive distillation: a student that learns a teacher's softened probabilities."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_alignment._core._arguments import check_arguments
from captum_alignment._core._gradients import for_autograd
from captum_alignment._core._inputs import ForwardFunc, TensorOrTuple, Tensors, accumulation_dtype, as_tensors
from captum_alignment._core._repeatable import check_repeatable
from captum_alignment._core._scores import as_scores, as_target, compute_scores, resolve_target, run_scores
from captum_alignment.training._forward import evaluating
from captum_alignment.training._penalties import soft_cross_entropy


def distillation_loss(scores: Tensor, target: Any, *, temperature: float) -> Tensor:
    """-Σ_k p_k log softmax(scores / T)_k of each sample: cross-entropy at temperature T.

    With classes as the target it trains the teacher, with a teacher's `soft_labels` the student. Gradients shrink like
    1/T. A model that was trained at T is used at temperature 1.

    Args:
        scores: (N, K); (N,) or (N, 1) is the logit Psi of class 1, treated as (-Psi/2, Psi/2).
        target: p, probabilities (N, K), or the class of each sample, as in Captum.
        temperature: T > 0; Papernot et al. try 1 to 100.

    Returns:
        (N,) in nats, in at least float32.

    Raises:
        TypeError: a tensor of the wrong kind.
        ValueError: shapes that do not fit, rows that are no probabilities, a temperature that is not positive.

    Papernot et al. (2016).

    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> scores = torch.nn.Linear(4, 3)(x)
    >>> distillation_loss(scores, y, temperature=10).shape
    torch.Size([8])
    """
    check_temperature(temperature)
    scores = as_scores(scores, len(scores))
    scores = scores.to(accumulation_dtype(scores.dtype)) / temperature
    two_dimensional = isinstance(target, Tensor) and target.is_floating_point() and target.ndim == 2
    if not two_dimensional or (target.shape[1] == 1 and scores.shape[1] == 2):  # classes, also 0. and 1.
        classes = resolve_target(as_target(target, len(scores)), scores)
        return F.cross_entropy(scores, classes, reduction="none")
    if target.shape != scores.shape:
        raise ValueError(
            f"target: got probabilities of shape {tuple(target.shape)}, expected that of the scores, "
            f"{tuple(scores.shape)}"
        )
    return soft_cross_entropy(scores, target)


def soft_labels(
    teacher: ForwardFunc, inputs: TensorOrTuple, additional_forward_args: Any = None, *, temperature: float
) -> Tensor:
    """softmax(teacher(inputs) / T), detached: what a student is to learn.

    Args:
        teacher: any callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. It runs in eval mode
            and leaves in the modes that it had.
        inputs: a tensor or tuple of tensors (N, ...).
        additional_forward_args: further arguments of ``teacher``, as in Captum.
        temperature: T > 0, that of the teacher's own training.

    Returns:
        Probabilities (N, K) in at least float32.

    Raises:
        TypeError: wrong kinds of arguments.
        ValueError: NaN scores, a temperature that is not positive.

    Papernot et al. (2016).

    >>> soft_labels(torch.nn.Linear(4, 3), torch.rand(8, 4), temperature=10).shape
    torch.Size([8, 3])
    """
    check_temperature(temperature)
    tensors = as_tensors(for_autograd(inputs))
    check_arguments(additional_forward_args, len(tensors[0]))

    def run(x: Tensors, args: Any) -> Tensor:
        return run_scores(teacher, x, args)

    with torch.no_grad(), evaluating(teacher):
        check_repeatable(run, tensors, additional_forward_args, model=teacher, name="teacher")
        scores = compute_scores(teacher, tensors, additional_forward_args)
    return (scores.to(accumulation_dtype(scores.dtype)) / temperature).softmax(1)


class Distillation:
    """The loss of a student, for any training loop: ``distillation(model(inputs), inputs)``.

    The mean over the batch of `distillation_loss` against the teacher's `soft_labels`. The teacher is not registered as
    a submodule, so no optimizer or checkpoint takes it in; it must be on the device of the inputs.

    Args:
        teacher: a model trained with `distillation_loss` at the same temperature, returning (N, K) logits, or (N,) /
            (N, 1): the logit of class 1.
        temperature: T > 0.
        student_temperature: at which the student is trained; by default T.

    Raises:
        ValueError: a temperature that is not positive.

    Papernot et al. (2016).

    >>> teacher, student, x = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), torch.rand(8, 4)
    >>> Distillation(teacher, temperature=10)(student(x), x).backward()
    """

    def __init__(self, teacher: ForwardFunc, *, temperature: float, student_temperature: float | None = None):
        check_temperature(temperature)
        self.teacher, self.temperature = teacher, temperature
        self.student_temperature = temperature if student_temperature is None else student_temperature
        check_temperature(self.student_temperature, "student_temperature")

    def __call__(self, scores: Tensor, inputs: TensorOrTuple) -> Tensor:
        """The scalar loss of the student's ``scores`` (N, K) for ``inputs``."""
        target = soft_labels(self.teacher, inputs, temperature=self.temperature)
        return distillation_loss(scores, target, temperature=self.student_temperature).mean()


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """A `ValueError` unless the temperature is a positive number."""
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not (number and math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"{name}: got {temperature!r}, expected a positive number")
