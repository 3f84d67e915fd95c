"""A piecewise linear network as a graph of affine functions and ReLUs, in float64, for one sample.

Every piecewise linear layer is made of these two: clip(z) is lo + relu(z - lo) - relu(z - hi), max(a, b) is
b + relu(a - b). The graph runs forwards (values), forwards on radii (interval arithmetic) and backwards with slopes of
the caller's choice, which is all that linear relaxations need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._constants import map_tensors
from captum_alignment._core._inputs import Tensors, widest_dtype


class NotPiecewiseLinear(ValueError):
    """A model uses a function that is not piecewise linear, or not known to be, or lies where there is no float64."""


def check_precision(device: torch.device) -> None:
    """A `NotPiecewiseLinear` unless ``device`` has float64, in which bounds are computed."""
    if widest_dtype(device) != torch.float64:
        raise NotPiecewiseLinear(
            f"inputs: are on {device}, which has no float64, in which networks are certified; move the model and the "
            "inputs to the CPU"
        )


@dataclass(frozen=True)
class Slot:
    """Stands in the arguments of an affine function for one of its parents."""

    index: int


@dataclass
class Node:
    """One value of the network: an input (no parents), an affine function of its parents, or the ReLU of one."""

    parents: tuple[int, ...]
    shape: torch.Size
    affine: "Affine | None" = None

    @property
    def is_relu(self) -> bool:
        return bool(self.parents) and self.affine is None


class Affine:
    """A torch function with constants for all arguments but its parents, in which it is jointly affine."""

    def __init__(
        self, function: Callable[..., Any], arguments: Any, item: int | None, shapes: list[torch.Size]
    ) -> None:
        self._function, self._arguments, self._item = function, arguments, item
        self.name = getattr(function, "__name__", str(function)).strip("_")
        self._magnitudes = map_tensors(lambda t: t.abs() if t.is_floating_point() else t, arguments)
        self._shapes = shapes
        self._pull: Callable[[Tensor], Tensors] | None = None

    def __call__(self, *parents: Tensor) -> Tensor:
        return self._run(self._arguments, parents)

    def spread(self, radii: Sequence[Tensor]) -> Tensor:
        """|A| r for radii r >= 0 of the parents.

        Each known function has either coefficients of one sign, or one parent for each of what it returns, or it
        multiplies by a tensor of weights: then their magnitudes serve.
        """
        zeros = [torch.zeros_like(r) for r in radii]
        at_zero = self._run(self._magnitudes, zeros)
        parts = []
        for i, radius in enumerate(radii):
            moved = self._run(self._magnitudes, [*zeros[:i], radius, *zeros[i + 1 :]])
            parts.append((moved - at_zero).nan_to_num(nan=0.0).abs())  # a masked class is -inf - -inf
        return torch.stack(parts).sum(0)

    def is_affine(self, generator: torch.Generator, device: torch.device) -> bool:
        """Whether f(a) + f(b) = f(a + b) + f(0) at random points: whatever its arguments may ask of the function."""
        a, b = ([torch.randn(s, generator=generator).double().to(device) for s in self._shapes] for _ in range(2))
        points = [[u + v for u, v in zip(a, b, strict=True)], [torch.zeros_like(u) for u in a], a, b]
        both, zero, one, other = (self(*point) for point in points)
        size = one.abs() + other.abs() + zero.abs() + both.abs()
        off = (one + other - both - zero).nan_to_num(nan=0.0).abs()  # a masked class is -inf - -inf
        return bool((off <= 1e-9 * size.nan_to_num(posinf=0.0).amax()).all()) if size.numel() else True

    def pull(self, gradient: Tensor) -> Tensors:
        """The gradients (R, ...) of the parents, for R gradients of what is returned."""
        if self._pull is None:
            zeros = [gradient.new_zeros(shape) for shape in self._shapes]
            self._pull = torch.func.vmap(torch.func.vjp(self, *zeros)[1])
        return self._pull(gradient.contiguous())  # views allow no other gradients

    def _run(self, arguments: Any, parents: Sequence[Tensor]) -> Tensor:
        args, kwargs = _filled(arguments, parents)
        result = self._function(*args, **kwargs)
        return result if self._item is None else result[self._item]


def _filled(value: Any, parents: Sequence[Tensor]) -> Any:
    if isinstance(value, Slot):
        return parents[value.index]
    if isinstance(value, dict):
        return {key: _filled(item, parents) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_filled(item, parents) for item in value])
    return value


@dataclass
class Piecewise:
    """The network of one sample.

    Attributes:
        nodes: in the order in which they are computed. inputs: the positions of the inputs. output: that of the scores
            (1, K). maxima: of each maximum, the node that stacks its candidates along dimension 0. inside: ReLUs that
            take part in a maximum, whose kinks need not be kinks of it.
    """

    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    output: int = -1
    maxima: list[int] = field(default_factory=list)
    inside: set[int] = field(default_factory=set)

    def values(self, inputs: Tensors) -> list[Tensor]:
        """The value of every node."""
        given = dict(zip(self.inputs, inputs, strict=True))
        values: list[Tensor] = []
        for i, node in enumerate(self.nodes):
            if i in given:
                values.append(given[i])
                continue
            parents = [values[p] for p in node.parents]
            values.append(parents[0].relu() if node.affine is None else node.affine(*parents))
        return values

    def relus(self) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if node.is_relu]

    def relus_below(self, index: int) -> list[int]:
        """The ReLUs between the inputs and node ``index``."""
        seen, left = set(), [index]
        while left:
            new = set(self.nodes[left.pop()].parents) - seen
            seen |= new
            left.extend(new)
        return [i for i in sorted(seen) if self.nodes[i].is_relu]

    def pull(self, gradients: dict[int, Tensor], through: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        """Gradients (R, ...) of the inputs for R gradients at every node that is given.

        ``through(relu, gradient)`` is asked what a ReLU makes of a gradient.
        """
        some = next(iter(gradients.values()))
        gradients = dict(gradients)
        for i in range(max(gradients), -1, -1):
            if i not in gradients or not self.nodes[i].parents:
                continue
            node, g = self.nodes[i], gradients.pop(i)
            pulled = (through(i, g),) if node.affine is None else node.affine.pull(g)
            for parent, part in zip(node.parents, pulled, strict=True):
                gradients[parent] = gradients[parent] + part if parent in gradients else part
        return [
            gradients[i] if i in gradients else some.new_zeros(len(some), *self.nodes[i].shape) for i in self.inputs
        ]
