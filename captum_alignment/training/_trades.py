"""TRADES: the smoothness of the predicted probabilities, at the nearby input where they differ most."""

import math
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._inputs import Tensors, accumulation_dtype, check_norm
from captum_alignment._core._random import as_generator
from captum_alignment._core._scores import as_scores
from captum_alignment.training._adversarial import ChannelBounds, check_attack, divergence, divergent_examples
from captum_alignment.training._forward import kept_buffers, scores_of
from captum_alignment.training._graph import Graph
from captum_alignment.training._regularizers import Regularizer


def trades_penalty(scores: Tensor, adversarial_scores: Tensor) -> Tensor:
    """KL(p ‖ p') of each sample, p = softmax(scores) and p' = softmax(adversarial_scores).

    Args:
        scores: (N, K) scores of clean inputs; (N,) or (N, 1) is the logit of the positive class 1.
        adversarial_scores: those of nearby inputs, of the same shape.

    Returns:
        (N,) in nats, in at least float32.

    Raises:
        TypeError, ValueError: no floating scores, shapes that differ.

    Zhang et al. (2019), where both arguments are differentiated.

    >>> trades_penalty(torch.zeros(2, 3), torch.zeros(2, 3))
    tensor([0., 0.])
    """
    clean, other = (as_scores(z, len(z)).to(accumulation_dtype(z.dtype)) for z in (scores, adversarial_scores))
    if clean.shape != other.shape:
        raise ValueError(f"adversarial_scores: got shape {tuple(other.shape)}, expected {tuple(clean.shape)}")
    return divergence(clean.log_softmax(1), other.log_softmax(1))


class TRADES(Regularizer):
    """Trains against the inputs where predictions change most: weight · mean_i max KL(p(x_i) ‖ p(x')), ‖x' - x_i‖ <= ε.

    x' is searched by projected gradient ascent on the divergence, with the model in eval mode, from x plus Gaussian
    noise of .001. The term then runs the model on x and on x', in the mode that it is in. Labels are not used, and no
    second derivative is needed.

    Args:
        weight: the paper's 1/λ, 1 to 6 for MNIST and CIFAR-10.
        epsilon: ε, in units of the input and of ``norm``.
        norm: 2 or inf, the norm of perturbations.
        steps, step_size, bounds: as of `adversarial_examples`.
        generator: where the noise comes from. None is a private one with a fixed seed that moves on from call to call.

    Raises:
        TypeError: weight or epsilon is not a number.
        ValueError: numbers out of range, an unknown norm; in the call, inputs out of bounds.

    Zhang et al. (2019); see `trades_penalty`.

    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> loss = torch.nn.functional.cross_entropy(model(x), y) + TRADES(1.0, epsilon=0.1, steps=2)(model, x, y)
    >>> loss.backward()
    """

    name = "trades"

    def __init__(
        self,
        weight: float,
        *,
        epsilon: float,
        norm: float = math.inf,
        steps: int = 10,
        step_size: float | None = None,
        bounds: ChannelBounds = (0, 1),
        generator: torch.Generator | None = None,
    ):
        super().__init__(weight)
        if check_norm(norm) == 1:
            raise ValueError("norm: got 1, expected 2 or inf (the norms of the attack)")
        check_attack("pgd-linf", epsilon, steps, step_size)
        self.epsilon, self.norm, self.steps, self.step_size, self.bounds = epsilon, norm, steps, step_size, bounds
        self.generator = as_generator(generator)

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        assert isinstance(graph, _Pair)
        return trades_penalty(graph.scores, graph.adversarial_scores)

    def _graph(self, model: Any, leaves: Tensors) -> Graph:
        clean = tuple(x.detach() for x in leaves)
        assert self.generator is not None
        found = divergent_examples(
            model, clean, attack="pgd-linf" if self.norm == math.inf else "pgd-l2", epsilon=self.epsilon,
            steps=self.steps, step_size=self.step_size, bounds=self.bounds, generator=self.generator,
        )  # fmt: skip
        with kept_buffers(model):
            return _Pair(scores_of(model, clean), clean, scores_of(model, found))


class _Pair(Graph):
    def __init__(self, scores: Tensor, inputs: Tensors, adversarial_scores: Tensor) -> None:
        super().__init__(scores, inputs)
        self.adversarial_scores = adversarial_scores
