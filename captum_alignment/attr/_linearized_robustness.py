"""The binarized saliency map and the linearized robustness, as a Captum attribution."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, overload

import torch
from torch import Tensor

from captum_alignment._core._captum import GradientAttribution, log_usage
from captum_alignment._core._gradients import graphs, valid_inputs, warn_of_flat
from captum_alignment._core._inputs import (
    ForwardFunc,
    InputsT,
    TensorOrTuple,
    check_norm,
    like_inputs,
    per_sample_dot,
)
from captum_alignment._core._nearest import nearest_rival
from captum_alignment._core._random import check_generator
from captum_alignment._core._rivals import NearestRival, check_candidates, concatenate, is_open
from captum_alignment._core._scores import as_target, resolve_target


def _of_fixed_target(attribute: Callable[..., Any]) -> Callable[..., Any]:
    """``attribute`` for noisy inputs, each of which could have another predicted class."""

    @wraps(attribute)
    def checked(self: Any, inputs: Any, target: Any = None, *args: Any, **kwargs: Any) -> Any:
        if target is None:
            raise ValueError(
                "target: got None inside a NoiseTunnel, where noise can change the predicted class; expected a fixed "
                "one, for example target=model(inputs).argmax(1)"
            )
        return attribute(self, inputs, target, *args, **kwargs)

    return checked


class LinearizedRobustness(GradientAttribution):
    """The gradient g† of the margin to the nearest rival (Etmann et al. 2019, Definition 4).

    rho~(x) = min_j (Psi^t - Psi^j) / ‖∇Psi^t - ∇Psi^j‖_q over the rivals j of the class t to leave; g† is the gradient
    of the minimiser's margin: the saliency map of the binary question *this class or the nearest other?*

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        norm: p of the perturbation, 1, 2 or inf; gradients are measured in its dual q, 1/p + 1/q = 1.
        candidates: search only the rivals with that many smallest gaps; None searches all, which is the definition.
            Among more than 64 the minimum is found by a sketch, wrong with a probability of at most 1e-6 per sample.
        multiply_by_inputs: attribute x ⊙ g† instead of g†.
        internal_batch_size: at most that many samples per model call.
        generator: of the sketch's random directions; None is a fixed private one, so that calls are reproducible.

    >>> method = LinearizedRobustness(torch.nn.Linear(2, 3))
    >>> method.attribute(torch.rand(5, 2)).shape, method.robustness(torch.rand(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        norm: float = 2,
        candidates: int | None = None,
        multiply_by_inputs: bool = False,
        internal_batch_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(forward_func)
        check_candidates(candidates)
        check_generator(generator)
        self.norm = check_norm(norm)
        self.candidates = candidates
        self.internal_batch_size = internal_batch_size
        self.generator = generator
        self._multiply_by_inputs = multiply_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        return self._multiply_by_inputs

    def has_convergence_delta(self) -> bool:
        """True where the attribution has a completeness identity: with ``multiply_by_inputs``."""
        return self._multiply_by_inputs

    @overload
    def attribute(
        self,
        inputs: InputsT,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: Literal[False] = False,
    ) -> InputsT: ...

    @overload
    def attribute(
        self,
        inputs: InputsT,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        return_convergence_delta: Literal[True],
    ) -> tuple[InputsT, Tensor]: ...

    @log_usage()
    def attribute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        inputs: InputsT,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """g†, or x ⊙ g† with ``multiply_by_inputs``, shaped like ``inputs`` (a tuple for a tuple).

        Args:
            inputs: floating tensor (N, ...) or a tuple of such, one joint vector per sample.
            target: the class to leave, an int or (N,); None is the predicted class.
            additional_forward_args: passed on after ``inputs``.
            return_convergence_delta: also return delta (N,) = Σ(x ⊙ g†) - margin = -beta†: the share of the margin that
                comes from biases, not from the input. It is no approximation error.

        Raises:
            TypeError, ValueError: as `captum_alignment.linear_analysis`; ``return_convergence_delta`` without
                ``multiply_by_inputs``, where no sum is known.
        """
        if return_convergence_delta and not self._multiply_by_inputs:
            raise ValueError("return_convergence_delta: only defined with multiply_by_inputs=True")
        nearest = self._nearest(inputs, target, additional_forward_args)
        maps = nearest.gradient
        if not self._multiply_by_inputs:
            return like_inputs(maps, inputs)
        x = inputs if isinstance(inputs, tuple) else (inputs,)
        attributions = like_inputs(tuple(t.detach() * g for t, g in zip(x, maps, strict=True)), inputs)
        if not return_convergence_delta:
            return attributions
        return attributions, per_sample_dot(tuple(t.detach() for t in x), maps) - nearest.gap

    # All that NoiseTunnel calls of it.
    attribute.__wrapped__ = _of_fixed_target(attribute.__wrapped__)  # pyright: ignore[reportFunctionMemberAccess]

    def robustness(self, inputs: TensorOrTuple, target: Any = None, additional_forward_args: Any = None) -> Tensor:
        """rho~ (N,), in the units of the input and in ``norm``; arguments and errors as `attribute`.

        0 at a tie; inf where a gap has no gradient; negative where ``target`` is not the top class.
        """
        return self._nearest(inputs, target, additional_forward_args).distance

    def _nearest(self, inputs: TensorOrTuple, target: Any, additional_forward_args: Any) -> NearestRival:
        tensors = valid_inputs(inputs, additional_forward_args)
        classes = as_target(target, len(tensors[0]))
        parts, size = [], self.internal_batch_size
        for graph, t in graphs(self.forward_func, tensors, additional_forward_args, size, classes):
            classes_here = resolve_target(t, graph.scores)
            parts.append(nearest_rival(graph, classes_here, self.norm, self.candidates, self.generator))
        found = concatenate(parts)
        warn_of_flat((found.gradient, "their linearized robustness is inf or NaN", is_open(found.gap)))
        return found
