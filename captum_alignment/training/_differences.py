"""Finite differences in place of double backpropagation: for models whose backward pass has no derivative."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._inputs import Tensors, per_sample_norm, per_sample_scale, unit
from captum_alignment.training._forward import kept_buffers, scores_of
from captum_alignment.training._graph import Graph, Quantity


class DifferenceGraph(Graph):
    """A graph whose gradients are plain values; `complete` adds what their dependence on the parameters is worth.

    Let a penalty P be a function of the scores and of gradients g = ∇ₓ q, and v = ∂P/∂g. Then the parameter gradient
    that runs through g is that of <v, g>, the slope of q along v, for which stands (q(x + h v/‖v‖) - q(x)) ‖v‖ / h with
    v fixed: one more forward pass per gradient, to be differentiated once. The value of P is exact and its parameter
    gradient right up to O(h). For P = ‖∇ loss‖² this is the scheme of Finlay & Oberman (2019).

    Every pass draws the same dropout masks. In train mode, batch norm makes samples depend on each other, which the
    differences, taken per sample, weigh in another way than double backpropagation.

    Args:
        model: any callable returning scores.
        step: h, the length of the l_2 step.
    """

    def __init__(self, model: Callable[..., Any], inputs: Tensors, step: float) -> None:
        self._model, self._step = model, step
        self._random = _random_state(inputs[0].device)
        super().__init__(self._run(inputs), inputs)
        self._quantities: list[Quantity] = []

    def complete(self, penalties: Tensor) -> Tensor:
        flat = [part for gradient in self.gradients for part in gradient]
        if not (flat and penalties.requires_grad):
            return penalties
        found = torch.autograd.grad(penalties.sum(), flat, retain_graph=True, materialize_grads=True)
        n = len(self.inputs)
        for index, quantity in enumerate(self._quantities):
            slope = self._slope(quantity, found[index * n : (index + 1) * n])
            penalties = penalties + slope - slope.detach()
        return penalties

    def _gradient(self, quantity: Quantity) -> Tensors:
        self._quantities.append(quantity)
        return tuple(g.detach().requires_grad_() for g in self.plain_gradient(quantity))

    def _scores_at(self, inputs: Tensors) -> Tensor:
        with _replayed(self._random, inputs[0].device):
            return Graph(self._run(inputs), inputs).scores

    def _run(self, inputs: Tensors) -> Tensor:
        with kept_buffers(self._model):  # every pass starts from the same ones
            return _full_precision(scores_of(self._model, inputs))

    def _slope(self, quantity: Quantity, directions: Tensors) -> Tensor:
        """<v, ∇ₓ q> (N,) by a step of length h along each sample's v."""
        length = per_sample_norm(directions, 2)
        steps = per_sample_scale(unit(directions, 2), torch.full_like(length, self._step))
        moved = tuple((x.detach() + s).to(x.dtype) for x, s in zip(self.inputs, steps, strict=True))
        return (quantity(self._scores_at(moved)) - quantity(self.scores)) * (length / self._step)


def _full_precision(scores: Tensor) -> Tensor:
    if scores.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"model: returned {scores.dtype} scores, whose finite differences are rounding noise; expected float32 or "
            "float64 (a model in float32; autocast is switched off here), or method='double-backward'"
        )
    return scores


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _replayed(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Chance repeats itself from ``state`` on, and afterwards goes on as if nothing had been drawn."""
    cpu, cuda = state
    with torch.random.fork_rng(devices=[] if cuda is None else [device]):
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        yield
