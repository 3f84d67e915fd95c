"""The border, about models that raise: one sentence instead of what torch says of their insides."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captum_alignment._core._inputs import ForwardFunc, Tensors
from captum_alignment._core._model import modules_behind

#: What torch and Python raise where a model does not fit its arguments. Other types have been chosen by the model's
#: author, and pass: `ValueError` too, which says what it expected.
_INTERNAL = {AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError}


class ModelFailure(ValueError, RuntimeError):
    """The user's model raised; a `RuntimeError` too, which it was in most cases."""


def told(error: Exception, forward_func: ForwardFunc, inputs: Tensors) -> Exception:
    """What to raise where ``forward_func`` raised ``error`` for ``inputs``: a `ModelFailure`, or ``error`` itself."""
    if type(error) not in _INTERNAL or str(error).startswith("forward_func"):
        return error
    got = sorted({str(x.dtype) for x in inputs})
    own = sorted({str(p.dtype) for m in modules_behind(forward_func) for p in m.parameters() if p.is_floating_point()})
    if own and not set(got) & set(own):
        have, need = ", ".join(got), ", ".join(own)
        ways = f"inputs.to({need}) or model.to({have})" if len(got) == len(own) == 1 else "one dtype for both"
        return ModelFailure(f"inputs: {have} for a model of {need} parameters, expected {ways}")
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
    what = (str(error).strip().splitlines() or ["no message"])[0]
    return ModelFailure(f"forward_func: raised {type(error).__name__} for inputs of shape {shapes}: {what}")


@contextmanager
def reentrant_told() -> Iterator[None]:
    """A `ModelFailure` where a gradient inside fails because of what torch calls reentrant checkpoints."""
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ModelFailure(
            "forward_func: uses checkpoints with use_reentrant=True, which allow no gradient of inputs; "
            "expected use_reentrant=False, or none in eval mode"
        ) from None


def check_callable(forward_func: Any) -> None:
    """A `TypeError` unless ``forward_func`` is what can be called with inputs: no class, which would be made."""
    if isinstance(forward_func, type):
        raise TypeError(f"forward_func: got the class {forward_func.__name__}, expected an instance of it")
    if not callable(forward_func):
        raise TypeError(f"forward_func: got {type(forward_func).__name__}, expected a model, or what runs one")
