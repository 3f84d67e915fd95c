"""From a user's callable to scores (N, K), the class to leave, and the gaps to the others."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from captum_alignment._core._captum import run_forward
from captum_alignment._core._inputs import ForwardFunc, Tensors, accumulation_dtype

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def modules_behind(forward_func: Any) -> list[nn.Module]:
    """The modules that a callable runs, as far as they can be seen.

    Itself, the owner of a method, what a partial or a Foolbox model wraps, what a function closes over or names.
    """
    if isinstance(forward_func, nn.Module):
        return [forward_func]
    if inspect.isfunction(forward_func):
        seen = inspect.getclosurevars(forward_func)
        return [value for value in (*seen.nonlocals.values(), *seen.globals.values()) if isinstance(value, nn.Module)]
    wrapped = (getattr(forward_func, name, None) for name in ("__self__", "func", "_model"))
    return [module for inner in wrapped if inner is not None for module in modules_behind(inner)]


def check_deterministic(forward_func: ForwardFunc, name: str = "forward_func") -> None:
    """A `ValueError` if a module behind ``forward_func`` makes a sample's results depend on the others or on chance."""
    for path, module in (named for owner in modules_behind(forward_func) for named in owner.named_modules()):
        uses_batch = (
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            and (module.training or module.running_mean is None)
            and not isinstance(module, nn.modules.instancenorm._InstanceNorm)
        )
        is_random = isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0
        if uses_batch or is_random:
            kind = "batch norm" if uses_batch else "dropout"
            raise ValueError(
                f"{name}: {kind} {path!r} is in training mode, so a sample's results depend on "
                f"{'the other samples' if uses_batch else 'chance'}; "
                f"call {'model' if name == 'forward_func' else name}.eval() first"
            )


def as_scores(output: Any, n: int) -> Tensor:
    """``output`` as scores (N, K >= 2).

    (N,) and (N, 1) are one signed score Psi and become (Psi/2, -Psi/2), the binary classifier sgn Psi.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func: returned {type(output).__name__}, expected a tensor of scores; "
            "wrap the model, e.g. lambda x: model(x).logits"
        )
    if output.ndim not in (1, 2) or len(output) != n or (output.ndim == 2 and output.shape[1] == 0):
        raise ValueError(
            f"forward_func: returned shape {tuple(output.shape)} for {n} samples, "
            f"expected ({n}, K) scores, or ({n},) / ({n}, 1) for a binary classifier"
        )
    if not output.is_floating_point():
        raise TypeError(f"forward_func: returned dtype {output.dtype}, expected floating scores, not labels")
    if output.ndim == 1 or output.shape[1] == 1:
        half = output.reshape(n, 1) / 2
        output = torch.cat([half, -half], 1)
    return output


def run_scores(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Tensor:
    """Scores (N, K) of one forward pass, on the graph of ``inputs``; their values are not looked at."""
    return as_scores(run_forward(forward_func, inputs, None, additional_forward_args), len(inputs[0]))


def compute_scores(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Tensor:
    """`run_scores`, and a `ValueError` for scores that are `invalid`."""
    scores = run_scores(forward_func, inputs, additional_forward_args)
    bad = invalid(scores).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"forward_func: returned NaN or +inf scores for {len(bad)} of {len(scores)} samples "
            f"(the first at index {bad[0]})"
        )
    return scores


def invalid(scores: Tensor) -> Tensor:
    """Which samples (N,) have NaN or +inf scores; -inf is a masked class."""
    scores = scores.detach()
    return (scores.isnan() | (scores == torch.inf)).any(1)


def as_target(target: Any, n: int) -> Tensor | None:
    """``target`` as None (the predicted class), a 0-d LongTensor (one class for all) or a LongTensor (n,).

    Accepts what Captum accepts for (N, K) outputs: an int, a 0-d or 1-d integer tensor, a list of ints, 1-tuples.
    """
    if target is None:
        return None
    if isinstance(target, tuple) and len(target) == 1:
        target = target[0]
    if isinstance(target, list):
        target = [item[0] if isinstance(item, tuple) and len(item) == 1 else item for item in target]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in target):
            raise TypeError("target: got a list with entries that are not integers, expected class indices")
        target = torch.tensor(target, dtype=torch.long)
    if isinstance(target, int) and not isinstance(target, bool):
        target = torch.tensor(target)
    if (
        not isinstance(target, Tensor)
        or target.is_floating_point()
        or target.is_complex()
        or target.dtype == torch.bool
    ):
        what = f"a tensor of {target.dtype}" if isinstance(target, Tensor) else f"{type(target).__name__} {target!r}"
        raise TypeError(f"target: got {what}, expected class indices: an int, a list of ints or an integer tensor (N,)")
    if target.ndim > 1 or (target.ndim == 1 and len(target) not in (1, n)):
        raise ValueError(f"target: got shape {tuple(target.shape)}, expected one class, or one for each of {n} samples")
    return target.long() if target.ndim == 0 or len(target) == n else target.long().squeeze(0)


def resolve_target(target: Tensor | None, scores: Tensor) -> Tensor:
    """The class to leave as a LongTensor (N,) on the device of ``scores``, from what `as_target` returned."""
    n, k = scores.shape
    if target is None:
        return scores.detach().argmax(1)
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= k:
        wrong = low if low < 0 else high
        raise ValueError(f"target: got class {wrong}, expected 0 to {k - 1} (the scores have {k} columns)")
    return target.to(scores.device).expand(n).clone()


def gaps(scores: Tensor, target: Tensor) -> Tensor:
    """Psi^t - Psi^j (N, K) for the class t to leave, in at least float32; inf at j = t, so that it is never a rival."""
    scores = scores.to(accumulation_dtype(scores.dtype))
    own = scores.gather(1, target.unsqueeze(1))
    return (own - scores).scatter(1, target.unsqueeze(1), torch.inf)
