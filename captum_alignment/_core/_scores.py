"""The border, third part: what a model's outputs mean: scores (N, K), the class to leave, the gaps to the others."""

import warnings
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from captum_alignment._core._failure import check_callable, told
from captum_alignment._core._inputs import ForwardFunc, Tensors, accumulation_dtype
from captum_alignment._core._model import call
from captum_alignment._core._questions import ask

#: How far the sum of a row of probabilities may be from 1: halves round so coarsely.
_SUM = 1e-2
#: What a target may be, in the words of its errors.
_CLASSES = "an int, a list of ints or an integer tensor (N,); 0. and 1. for two classes"


def as_scores(output: Any, n: int) -> Tensor:
    """``output`` as scores (N, K >= 2).

    (N,) and (N, 1) are the logit Psi of the positive class 1, as in `BCEWithLogitsLoss`, and become (-Psi/2, Psi/2):
    the classifier 1[Psi > 0], whose cross-entropy is the binary one.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func: returned {type(output).__name__}, expected a tensor of scores; "
            f"wrap the model, {_way(output)}"
        )
    if type(output) is not Tensor:
        output = output.as_subclass(Tensor)  # attacks know no other, such as one that carries metadata along
    if output.ndim not in (1, 2) or len(output) != n or (output.ndim == 2 and output.shape[1] == 0):
        raise ValueError(
            f"forward_func: returned shape {tuple(output.shape)} for {n} samples, "
            f"expected ({n}, K) scores, or ({n},) / ({n}, 1) logits of the positive class"
        )
    if not output.is_floating_point():
        raise TypeError(f"forward_func: returned dtype {output.dtype}, expected floating scores, not labels")
    if is_one_logit(output):
        half = output.reshape(n, 1) / 2
        output = torch.cat([-half, half], 1)
    return output


def is_one_logit(output: Tensor) -> bool:
    """Whether a model's output is one logit for each sample, that of the positive class."""
    return output.ndim == 1 or output.shape[1] == 1


def _way(output: Any) -> str:
    """How a model that returns ``output`` is wrapped."""
    if isinstance(output, dict):
        names = [name for name, value in output.items() if isinstance(value, Tensor)]
        name = next((name for name in names if "logit" in str(name)), names[0] if names else "logits")
        attribute = hasattr(output, str(name))
        return f"e.g. lambda *x: model(*x).{name}" if attribute else f"e.g. lambda *x: model(*x)[{name!r}]"
    if isinstance(output, (tuple, list)):
        fields = [name for name in getattr(output, "_fields", ()) if isinstance(getattr(output, name), Tensor)]
        if fields:
            return f"e.g. lambda *x: model(*x).{next((f for f in fields if 'logit' in f), fields[0])}"
        place = next((i for i, value in enumerate(output) if isinstance(value, Tensor)), 0)
        return f"e.g. lambda *x: model(*x)[{place}]"
    names = [name for name, value in getattr(output, "__dict__", {}).items() if isinstance(value, Tensor)]
    if names:
        return f"e.g. lambda *x: model(*x).{next((n for n in names if 'logit' in n), names[0])}"
    return "so that it returns one"


def run_output(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Tensor:
    """What the model returns for ``inputs``, on their graph; a `ValueError` for scores that are `invalid`.

    Raises:
        ModelFailure: what torch raised inside the model.

    Warns:
        UserWarning: probabilities in place of logits.
    """
    check_callable(forward_func)
    try:
        output = call(forward_func, inputs, additional_forward_args)
    except Exception as error:
        failure = told(error, forward_func, inputs)
        if failure is error:
            raise
        raise failure from error
    scores = as_scores(output, len(inputs[0])).detach()
    bad, one = invalid(scores), is_one_logit(output)
    ask((bad.any(), lambda: _refuse(bad)), (_are_probabilities(output.detach()), lambda: _warn_of_probabilities(one)))
    return output


def _are_probabilities(output: Tensor) -> Tensor:
    within = ((output >= 0) & (output <= 1)).all()
    return within if is_one_logit(output) else within & are_distributions(output).all()


def are_distributions(rows: Tensor) -> Tensor:
    """Which of the ``rows`` (N, K) are probabilities of K classes."""
    return ((rows.sum(1) - 1).abs() <= _SUM) & (rows >= 0).all(1)


def _refuse(bad: Tensor) -> NoReturn:
    rows = bad.nonzero().flatten().tolist()
    raise ValueError(
        f"forward_func: returned NaN or +inf scores for {len(rows)} of {len(bad)} samples "
        f"(the first at index {rows[0]})"
    )


def _warn_of_probabilities(one: bool) -> None:
    if one:
        got, last, wrong = "one column in [0, 1]", "sigmoid", "the sign never changes, so no class can be left"
    else:
        got, last, wrong = "rows in [0, 1] that sum to 1", "softmax", "gradients vanish where the model is sure"
    warnings.warn(
        f"forward_func: returned {got}, which look like probabilities; "
        f"logits are expected, the scores before the {last}: {wrong}",
        UserWarning,
        stacklevel=2,
    )


def run_scores(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Tensor:
    """Scores (N, K) of one forward pass, on the graph of ``inputs``; their values are not looked at."""
    return as_scores(call(forward_func, inputs, additional_forward_args), len(inputs[0]))


def compute_scores(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Tensor:
    """The scores (N, K) of `run_output`."""
    return as_scores(run_output(forward_func, inputs, additional_forward_args), len(inputs[0]))


def invalid(scores: Tensor) -> Tensor:
    """Which samples (N,) have NaN or +inf scores; -inf is a masked class."""
    scores = scores.detach()
    return (scores.isnan() | (scores == torch.inf)).any(1)


def as_target(target: Any, n: int) -> Tensor | None:
    """``target`` as None (the predicted class), a 0-d tensor (one class for all) or a tensor (n,), not yet in range.

    Accepts what Captum accepts for (N, K) outputs: an int, a 0-d or 1-d integer tensor, a list of ints, 1-tuples;
    NumPy's in their place; and for two classes the 0. and 1. of binary losses, (n,) or (n, 1).
    """
    if target is None:
        return None
    if isinstance(target, tuple) and len(target) == 1:
        target = target[0]
    if isinstance(target, list):
        target = [item[0] if isinstance(item, tuple) and len(item) == 1 else item for item in target]
        if not all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in target):
            raise TypeError("target: got a list with entries that are not integers, expected class indices")
        target = torch.tensor([int(item) for item in target], dtype=torch.long)
    if isinstance(target, (int, np.integer, np.ndarray)) and not isinstance(target, bool):
        target = torch.as_tensor(target)
    if isinstance(target, Tensor) and target.is_floating_point() and target.shape == (n, 1):
        target = target.squeeze(1)
    soft = isinstance(target, Tensor) and target.is_floating_point() and target.ndim > 1
    if not isinstance(target, Tensor) or soft or target.is_complex() or target.dtype == torch.bool:
        what = f"a tensor of {target.dtype}" if isinstance(target, Tensor) else f"{type(target).__name__} {target!r}"
        raise TypeError(f"target: got {what}, expected class indices: {_CLASSES}")
    if target.ndim > 1 or (target.ndim == 1 and len(target) not in (1, n)):
        raise ValueError(f"target: got shape {tuple(target.shape)}, expected one class, or one for each of {n} samples")
    target = target if target.is_floating_point() else target.long()
    return target if target.ndim == 0 or len(target) == n else target.squeeze(0)


def resolve_target(target: Tensor | None, scores: Tensor) -> Tensor:
    """The class to leave as a LongTensor (N,) on the device of ``scores``, from what `as_target` returned."""
    n, k = scores.shape
    if target is None:
        return scores.detach().argmax(1)
    classes = target.long()

    def refuse_kind() -> NoReturn:
        raise TypeError(f"target: got a tensor of {target.dtype}, expected class indices: {_CLASSES}")

    def refuse_class() -> NoReturn:
        wrong = int(low) if low < 0 else int(high)
        raise ValueError(f"target: got class {wrong}, expected 0 to {k - 1} (the scores have {k} columns)")

    if target.is_floating_point():
        if k > 2:
            refuse_kind()
        ask(((classes != target).any(), refuse_kind))
    low, high = classes.aminmax()
    ask(((low < 0) | (high >= k), refuse_class))
    # Clamped, because the answer may come later.
    return classes.to(scores.device).clamp(0, k - 1).expand(n).clone()


def reported(output: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The class (N,) whose score is reported, and weights (N, K) that make the report of the scores (N, K).

    Of K >= 2 columns the target's, of one logit Psi the logit itself: Psi for target 1 and for None, -Psi for target 0.
    Nothing is halved.
    """
    scores = as_scores(output, len(output))
    one = is_one_logit(output)
    classes = resolve_target(scores.new_ones((), dtype=torch.long) if one and target is None else target, scores)
    weights = torch.zeros_like(scores).scatter_(1, classes.unsqueeze(1), 2 if one else 1)
    return classes, weights


def gaps(scores: Tensor, target: Tensor) -> Tensor:
    """Psi^t - Psi^j (N, K) for the class t to leave, in at least float32; inf at j = t, so that it is never a rival."""
    scores = scores.to(accumulation_dtype(scores.dtype))
    own = scores.gather(1, target.unsqueeze(1))
    return (own - scores).scatter(1, target.unsqueeze(1), torch.inf)
