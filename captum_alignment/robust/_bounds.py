"""The bounds of features: what a user says, and what a Foolbox model brings."""

from typing import NoReturn

from captum_alignment._core._foolbox import Bounds
from captum_alignment._core._foolbox_names import Model
from captum_alignment._core._inputs import ForwardFunc, Tensors
from captum_alignment._core._questions import ask


def resolve_bounds(forward_func: ForwardFunc, bounds: Bounds) -> Bounds:
    """``bounds`` as two ascending floats, or those that a Foolbox model brings."""
    if isinstance(forward_func, Model):
        own = (float(forward_func.bounds[0]), float(forward_func.bounds[1]))
        if tuple(bounds) not in ((0, 1), own):
            raise ValueError(f"bounds: got {tuple(bounds)}, but the Foolbox model has bounds {own}")
        return own
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"bounds: got {bounds!r}, expected (min, max)") from None
    if not low < high:
        raise ValueError(f"bounds: got {(low, high)}, expected min < max")
    return low, high


def check_inside(tensors: Tensors, bounds: Bounds) -> None:
    """A `ValueError` unless all ``tensors`` lie inside ``bounds``."""

    def refuse() -> NoReturn:
        low, high = min(float(t.min()) for t in tensors), max(float(t.max()) for t in tensors)
        raise ValueError(
            f"inputs range {low:.4g} to {high:.4g}, bounds ({bounds[0]:g}, {bounds[1]:g}): "
            "put the normalisation into the model, or pass the bounds of your inputs"
        )

    for low, high in (t.aminmax() for t in tensors):
        ask(((low < bounds[0]) | (high > bounds[1]), refuse))
