"""The homogeneous decomposition of a score as a saliency map."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_alignment._core._biases import Trace, contribution, traces
from captum_alignment._core._captum import GradientAttribution, log_usage
from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import (
    ForwardFunc,
    InputsT,
    accumulation_dtype,
    as_images,
    as_tensors,
    like_inputs,
    rows,
)
from captum_alignment._core._scores import as_target, reported


class FullGradient(GradientAttribution):
    """FullGrad (Srinivas & Fleuret 2019): x ⊙ ∇Psi plus the bias gradients c ⊙ ∂Psi/∂c of every layer, resized.

    The terms are those of `captum_alignment.metrics.homogeneous_decomposition`, summed over channels and laid over the
    image. Every pixel's share of a layer is spread over the image with bilinear weights that sum to 1; a term without
    spatial extent (a dense layer, a token) is spread evenly; the channels of the image share alike. So the map of a
    piecewise linear network sums to the score: it is complete.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        absolute: the paper's postprocessing, for display: absolute values, rescaled to [0, 1] for every sample and
            layer, then resized; terms without spatial extent are left out, as they shift the map by a constant. Summed
            over the channels of the image this is the paper's map, and it is not complete.
        internal_batch_size: at most that many samples per model call.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> maps, delta = FullGradient(net).attribute(x, target=1, return_convergence_delta=True)
    >>> maps.shape, torch.allclose(maps.sum((1, 2, 3)), net(x)[:, 1], atol=1e-5)
    (torch.Size([2, 3, 8, 8]), True)
    """

    def __init__(
        self, forward_func: ForwardFunc, *, absolute: bool = False, internal_batch_size: int | None = None
    ) -> None:
        super().__init__(forward_func)
        self.absolute = absolute
        self.internal_batch_size = internal_batch_size

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def has_convergence_delta(self) -> bool:
        """True where the attribution has a completeness identity: without ``absolute``."""
        return not self.absolute

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

    @log_usage()  # NoiseTunnel reaches through this decorator
    def attribute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        inputs: InputsT,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """The map, shaped like ``inputs`` (a 1-tuple for a 1-tuple): one forward and one backward pass.

        Args:
            inputs: floating images (N, C, H, W). Terms of four dimensions are read as (N, channels, height, width), or
                with the channels last where a dense layer or a layer norm adds them.
            target: the class to explain, an int or (N,); None is the predicted class.
            additional_forward_args: passed on after ``inputs``.
            return_convergence_delta: also return delta (N,) = sum of the map - score, 0 up to rounding for piecewise
                linear networks: minus the residual of the decomposition.

        Raises:
            TypeError, ValueError: as `captum_alignment.linear_analysis`; inputs that are not one batch of images;
                ``return_convergence_delta`` with ``absolute``.
        """
        if return_convergence_delta and self.absolute:
            raise ValueError("return_convergence_delta: only defined with absolute=False")
        as_images(as_tensors(inputs))
        size = self.internal_batch_size
        tensors = checked_inputs(self.forward_func, inputs, additional_forward_args, size)
        classes = as_target(target, len(tensors[0]))
        found = [
            self._explain(trace, t)
            for trace, t in traces(self.forward_func, size, tensors, additional_forward_args, classes)
        ]
        maps, scores = map(torch.cat, zip(*found, strict=True))
        attributions = like_inputs((maps.to(tensors[0].dtype),), inputs)
        return (attributions, maps.sum((1, 2, 3)) - scores) if return_convergence_delta else attributions

    def _explain(self, trace: Trace, target: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = trace.graph.scores.detach()
        classes, weights = reported(trace.graph.output.detach(), target)
        x = trace.graph.inputs[0].detach()
        reduce = _absolute_map(x.shape) if self.absolute else _complete_map(x.shape)
        gradient, terms = trace.gradient(weights, reduce)
        own = x.to(accumulation_dtype(x.dtype)) * gradient[0]
        own = _rescaled(own) if self.absolute else own
        layers = sum(terms.values(), own.new_zeros(len(x), 1, *x.shape[2:]))
        score = (weights * scores).gather(1, classes.unsqueeze(1)).squeeze(1).to(own.dtype)
        return own + layers / x.shape[1], score


def _complete_map(image: torch.Size) -> Callable[[Tensor, Tensor], Tensor]:
    """From a term to its share (N, 1, H, W) of the map, whose sum is the term's contribution."""
    n, _, *size = image

    def reduce(constant: Tensor, gradient: Tensor) -> Tensor:
        terms = _spatial(constant, gradient, n)
        if terms is None:
            total = contribution(constant, gradient, n).reshape(n, 1, 1, 1)
            return (total / (size[0] * size[1])).expand(n, 1, *size)
        terms = terms.sum(1, keepdim=True)
        rows_, columns = (_spread(a, b).to(terms) for a, b in zip(terms.shape[2:], size, strict=True))
        return rows_ @ terms @ columns.T

    return reduce


def _absolute_map(image: torch.Size) -> Callable[[Tensor, Tensor], Tensor]:
    """From a term to psi(term) = resize(rescale(|term|)), summed over its channels."""
    n, _, *size = image

    def reduce(constant: Tensor, gradient: Tensor) -> Tensor:
        terms = _spatial(constant, gradient, n)
        if terms is None:
            return gradient.new_zeros(n, 1, *size, dtype=accumulation_dtype(gradient.dtype))
        # The sum over channels is linear like the resizing, and cheaper first.
        return F.interpolate(_rescaled(terms).sum(1, keepdim=True), size, mode="bilinear", align_corners=False)

    return reduce


def _spatial(constant: Tensor, gradient: Tensor, n: int) -> Tensor | None:
    """c ⊙ ∂Psi/∂c as (N, channels, h, w); None for a term without spatial extent."""
    if gradient.ndim != 4 or len(gradient) != n:
        return None
    terms = constant * gradient.to(accumulation_dtype(gradient.dtype))
    return terms.movedim(-1, 1) if constant.ndim == 1 else terms


def _rescaled(terms: Tensor) -> Tensor:
    """|terms| of each sample, mapped to [0, 1]; a constant one to 0."""
    size = terms.abs()
    flat = rows(size, size.dtype)
    low, high = (bound.reshape(-1, 1, 1, 1) for bound in (flat.min(1).values, flat.max(1).values))
    return torch.where(high > low, (size - low) / (high - low), 0)


@lru_cache(maxsize=64)
def _spread(source: int, size: int) -> Tensor:
    """Bilinear weights (size, source) that hand on all of every source pixel: each column sums to 1."""
    pixels = torch.eye(source, dtype=torch.float64)[None, None]
    weights = F.interpolate(pixels, (size, source), mode="bilinear", align_corners=False, antialias=True)[0, 0]
    return weights / weights.sum(0)
