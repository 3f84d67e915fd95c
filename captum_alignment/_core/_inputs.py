"""Inputs as tuples of tensors; dot products and norms that run over all features of one sample."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from captum_alignment._core._questions import ask

Tensors: TypeAlias = tuple[Tensor, ...]
TensorOrTuple: TypeAlias = Tensor | Tensors
#: A tensor for a tensor, a tuple for a tuple.
InputsT = TypeVar("InputsT", Tensor, tuple[Tensor, ...])
ForwardFunc: TypeAlias = Callable[..., Any]

#: Norms of the perturbation and the duals that measure the gradient, 1/p + 1/q = 1.
_DUALS = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number of Python's or NumPy's, and not a bool."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_norm(norm: float) -> float:
    """``norm`` as a float; a `ValueError` unless it is 1, 2 or inf."""
    if not is_number(norm) or float(norm) not in _DUALS:
        raise ValueError(f"norm: got {norm!r}, expected 1, 2 or inf (the norm of the perturbation)")
    return float(norm)


def check_count(name: str, value: Any, least: int = 1, also: str = "") -> int:
    """``value``, or a `ValueError` unless it is an integer >= ``least``; ``also`` names what else is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name}: got {value!r}, expected {expected}{also}")
    return int(value)


def dual(norm: float) -> float:
    """The norm in which gradients are measured when perturbations are measured in ``norm``."""
    return _DUALS[norm]


def as_tensors(value: Any, name: str = "inputs", integers: bool = False) -> Tensors:
    """``value`` as a non-empty tuple of floating tensors with one common, non-zero batch size; ``integers`` do too.

    Raises:
        TypeError: not a tensor or a tuple of tensors, or not of a floating dtype.
        ValueError: no tensor, a 0-d tensor, an empty batch, samples without features, or batch sizes that differ.
    """
    tensors = value if isinstance(value, tuple) else (value,)
    if not tensors:
        raise ValueError(f"{name}: got an empty tuple, expected at least one tensor")
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a tensor or a tuple of tensors")
        if not tensor.is_floating_point() and (not integers or tensor.is_complex()):
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating dtype (gradients are taken)")
        if tensor.ndim == 0:
            raise ValueError(f"{name}: got a 0-d tensor, expected a batch (N, ...)")
    sizes = [len(tensor) for tensor in tensors]
    if len(set(sizes)) > 1:
        raise ValueError(f"{name}: got batch sizes {sizes}, expected the same for every tensor")
    if sizes[0] == 0:
        raise ValueError(f"{name}: got an empty batch, expected at least one sample")
    if not any(tensor.numel() for tensor in tensors):
        raise ValueError(f"{name}: got samples without features, of shape {tuple(tensors[0].shape)}")
    return tensors


def check_finite(tensors: Tensors, name: str) -> None:
    """A `ValueError` that counts and locates the samples of ``tensors`` with NaN or infinite entries."""
    bad = torch.stack([~tensor.detach().flatten(1).isfinite().all(1) for tensor in map(_at_least_2d, tensors)])

    def refuse() -> NoReturn:
        rows = bad.any(0).nonzero().flatten().tolist()
        raise ValueError(
            f"{name}: NaN or infinite entries in {len(rows)} of {bad.shape[1]} samples (the first at index {rows[0]})"
        )

    ask((bad.any(), refuse))


def check_same_shapes(inputs: Tensors, others: Tensors, name: str, of: str = "the inputs") -> None:
    """A `ValueError` unless ``others``, called ``name``, has the shapes of ``inputs``, called ``of``."""
    got, expected = [tuple(t.shape) for t in others], [tuple(t.shape) for t in inputs]
    if got != expected:
        raise ValueError(f"{name}: got shapes {got}, expected those of {of}, {expected}")


def as_images(tensors: Tensors, name: str = "inputs") -> Tensor:
    """The one batch of images that ``tensors`` consists of, else a `ValueError`."""
    if len(tensors) != 1 or tensors[0].ndim != 4:
        raise ValueError(
            f"{name}: got shapes {[tuple(t.shape) for t in tensors]}, expected one batch of images (N, C, H, W)"
        )
    return tensors[0]


def like_inputs(tensors: Tensors, inputs: InputsT) -> InputsT:
    """Captum's convention: a tuple for a tuple (1-tuples too), a tensor for a tensor."""
    return tensors if isinstance(inputs, tuple) else tensors[0]  # pyright: ignore[reportReturnType]


def _at_least_2d(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim > 1 else tensor.unsqueeze(1)


def accumulation_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype in which sums run: at least float32, because halves lose the sum of an image."""
    result = torch.float32
    for dtype in dtypes:
        result = torch.promote_types(result, dtype)
    return result


@cache
def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that lacks it (MPS)."""
    try:
        return torch.zeros((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):
        return torch.float32


def rows(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """``tensor`` (N, ...) as a matrix (N, D) of ``dtype``."""
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:])).to(dtype)  # -1 fits no empty batch


def flatten(tensors: Tensors, dtype: torch.dtype) -> Tensor:
    """A tuple of tensors as one joint vector per sample (N, D) of ``dtype``."""
    return torch.cat([rows(t, dtype) for t in tensors], 1)


def unflatten(matrix: Tensor, like: Tensors) -> Tensors:
    """The inverse of `flatten`: (..., D) as tensors with the features and dtypes of ``like``."""
    parts = matrix.split([math.prod(t.shape[1:]) for t in like], -1)
    return tuple(p.reshape(*matrix.shape[:-1], *t.shape[1:]).to(t.dtype) for p, t in zip(parts, like, strict=True))


def per_sample_dot(a: Tensors, b: Tensors) -> Tensor:
    """<a, b> (N,) over all features of all tensors."""
    dtype = accumulation_dtype(*(t.dtype for t in (*a, *b)))
    # Product and sum, although vecdot and bmm need no temporary: those were up to ten times slower on a CPU.
    parts = [(rows(u, dtype) * rows(v, dtype)).sum(1) for u, v in zip(a, b, strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def per_sample_norm(tensors: Tensors, order: float) -> Tensor:
    """The l_order norm (N,) over all features of all tensors; differentiable, with gradient 0 at 0."""
    dtype = accumulation_dtype(*(t.dtype for t in tensors))
    norms = _joint_norm([rows(t, dtype) for t in tensors], order)
    if order != 2:
        return norms
    # Squares of entries below about 1e-19 underflow in float32 (saliency of a saturated softmax): rescale then; on an
    # accelerator always, because to look would cost more.
    if norms.device.type == "cpu":
        smallest, largest = norms.detach().aminmax()
        if smallest > 1e-16 and largest < math.inf:
            return norms
    largest = _joint_norm([rows(t, dtype) for t in tensors], math.inf).detach()
    scale = torch.where(largest > 0, largest.log2().floor().exp2(), 1)  # a power of 2 costs no digit
    return scale * _joint_norm([rows(t, dtype) / scale.unsqueeze(1) for t in tensors], order)


def _joint_norm(parts: list[Tensor], order: float) -> Tensor:
    norms = [torch.linalg.vector_norm(part, order, dim=1) for part in parts]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms, 1), order, dim=1)


def per_sample(column: Tensor, tensor: Tensor) -> Tensor:
    """One value (N,) for each sample of ``tensor`` (N, ...), shaped to broadcast against it."""
    return column.reshape(-1, *[1] * (tensor.ndim - 1))


def per_sample_scale(tensors: Tensors, factors: Tensor) -> Tensors:
    """Each sample of ``tensors`` times its entry of ``factors`` (N,), in the dtype of the tensors."""
    return tuple(t * per_sample(factors.to(t.dtype), t) for t in tensors)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` with 0/0 = 0; a non-zero numerator over 0 stays infinite."""
    return torch.where((numerator == 0) & (denominator == 0), 0, numerator / denominator)


def unit(tensors: Tensors, order: float) -> Tensors:
    """v / ‖v‖ per sample, in the accumulation dtype; the zero vector normalises to 0."""
    dtype = accumulation_dtype(*(t.dtype for t in tensors))
    norms = per_sample_norm(tensors, order)
    factors = torch.where(norms > 0, 1 / norms, 0)
    return per_sample_scale(tuple(t.to(dtype) for t in tensors), factors)


def batches(size: int | None, inputs: Tensors, *per_sample: Any) -> Iterator[tuple[Any, ...]]:
    """Consecutive batches of at most ``size`` samples (None = one batch) of ``inputs`` and what goes with it.

    Of every further value, tensors are sliced, also inside a tuple (``additional_forward_args``); anything else is
    passed on whole, as Captum does.
    """
    if size is not None:
        check_count("internal_batch_size", size, also=" or None")
    n = len(inputs[0])
    if size is None or size >= n:
        yield (inputs, *per_sample)
        return
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield tuple(take(value, part, n) for value in (inputs, *per_sample))


def join(parts: Sequence[Tensors]) -> Tensors:
    """The inverse of `batches` for a tuple of tensors."""
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def take(value: Any, index: slice | Tensor, n: int) -> Any:
    """The samples ``index`` of the tensors in ``value``, which hold one entry for each of ``n`` samples."""
    if isinstance(value, Tensor):
        if value.ndim and len(value) != n:
            raise ValueError(f"additional_forward_args: got {len(value)} entries, expected one for each of {n} samples")
        return value[index] if value.ndim else value
    if isinstance(value, tuple):
        return tuple(take(item, index, n) for item in value)
    return value


def to_dataframe(columns: dict[str, Tensor]) -> Any:
    """A pandas ``DataFrame`` of per-sample tensors (N,)."""
    try:
        import pandas as pd  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install 'captum-alignment[study]'") from error
    return pd.DataFrame({name: column.detach().cpu().numpy() for name, column in columns.items()})
