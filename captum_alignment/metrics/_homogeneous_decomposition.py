"""A score as its linear part plus the contribution of every additive term of the network, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from captum_alignment._core._biases import Trace, contribution, traces
from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    per_sample_dot,
    ratio,
)
from captum_alignment._core._inputs import to_dataframe as as_dataframe
from captum_alignment._core._nearest import nearest_rival
from captum_alignment._core._scores import as_target, reported, resolve_target

if TYPE_CHECKING:
    from pandas import DataFrame

#: Lines that str() gives to single terms.
_SHOWN = 10


@dataclass(frozen=True)
class HomogeneousDecomposition:
    """Per-sample tensors (N,) in units of the score, on the inputs' device, at least float32.

    Attributes:
        score: Psi, the target's score or its margin to the rival.
        input: <x, ∇Psi>.
        bias: the sum of ``by_parameter``.
        by_parameter: {name: <c, ∂Psi/∂c>} of every input-independent term c that is added between input and score, in
            the order of the forward pass.
        residual: score - input - bias; 0 up to rounding where the network is piecewise linear.
        target: the class. rival: the other class of the margin, None for a score.
    """

    score: Tensor
    input: Tensor
    bias: Tensor
    by_parameter: dict[str, Tensor]
    residual: Tensor
    target: Tensor
    rival: Tensor | None

    @property
    def scale(self) -> Tensor:
        """|input| + Σ|terms|, what the residual is to be measured by."""
        return sum((term.abs() for term in self.by_parameter.values()), self.input.abs())

    @property
    def relative_residual(self) -> Tensor:
        """|residual| / (|input| + Σ|terms|)."""
        return ratio(self.residual.abs(), self.scale)

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: score, input, bias, residual, relative_residual and every term; needs pandas."""
        columns = {name: getattr(self, name) for name in ("score", "input", "bias", "residual", "relative_residual")}
        return as_dataframe({**columns, **self.by_parameter})

    def __str__(self) -> str:
        medians = {name: getattr(self, name).median() for name in ("score", "input", "bias", "residual")}
        terms = {name: term.median() for name, term in self.by_parameter.items()}
        largest = sorted(terms, key=lambda name: -self.by_parameter[name].abs().median())[:_SHOWN]
        width = max(len(name) + 2 for name in [*medians, *largest])
        lines = [f"medians over {len(self.score)} samples"]
        lines += [f"{name:<{width}} {value:10.4g}" for name, value in medians.items()]
        lines += [f"  {name:<{width - 2}} {terms[name]:10.4g}" for name in largest]
        if len(terms) > len(largest):
            lines.append(f"  and {len(terms) - len(largest)} smaller terms")
        worst = float(self.relative_residual.max())
        exact = worst <= torch.finfo(self.score.dtype).eps ** 0.5
        lines.append(
            f"largest |residual| / Σ|terms| {worst:.2g}: "
            + ("the terms explain the score" if exact else "the network is not piecewise linear, or a term is hidden")
        )
        return "\n".join(lines)


def homogeneous_decomposition(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    of: Literal["score", "margin"] = "score",
    rival: Any = None,
    internal_batch_size: int | None = None,
) -> HomogeneousDecomposition:
    """Psi(x) = <x, ∇Psi> + Σ <c, ∂Psi/∂c> + residual (Etmann et al. 2019, Theorem 1; Srinivas & Fleuret 2019).

    The sum runs over every input-independent term that is added on the way, whether a module, a function or an operator
    adds it. A parameter or buffer has its qualified name: biases of convolutions, dense layers and layer norms, means,
    class tokens, positional embeddings. What else a module adds is called "module (function)": batch norm's
    beta - mu·gamma/sqrt(var + eps) "bn1 (batch_norm)", the 6 of a saturated ReLU6 "act (hardtanh)", a number
    "encoder (add)". Terms added several times are summed; unused parameters are absent.

    The residual is 0 up to rounding for convolutions, dense layers, (leaky) ReLU, pooling, skips, padding, eval-mode
    batch norm and clipping. It is not for GELU, SiLU, softmax, attention or layer norm, whose terms still are what they
    are called; ``relative_residual`` tells how much is left.

    One forward and one backward pass, whatever the number of layers; a margin without ``rival`` takes the search for it
    besides. Where a network transposes the first dimension away (attention), samples run one after the other.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. The one `nn.Module`
            behind it (itself, or in a closure, a method, a partial, an object) names the terms. What is added outside
            of it is called "forward_func"; so is the sum of all terms where no module is seen, or several.
            TorchScript runs out of sight: what it adds is in the residual.
        inputs: floating tensor (N, ...) or a tuple of such, one joint vector per sample.
        target: the class to leave, an int or (N,); None is the predicted class.
        additional_forward_args: passed on after ``inputs``, as in Captum; constants, like the parameters.
        of: Psi is the target's score ("score") or its score minus the rival's ("margin").
        rival: the other class of the margin, an int or (N,), for example `linear_analysis`'s; None searches the one
            whose linearized boundary is nearest in l_2.
        internal_batch_size: at most that many samples per model call.

    Raises:
        TypeError, ValueError: as `linear_analysis`; an unknown ``of``; a ``rival`` for a score, or equal to the target.

    The shift x + beta z/‖z‖² carries the bias of an affine function <z, x> + beta into its input. It turns the affine
    identity, rho~ = (<x, g†> + beta†) / ‖g†‖, into the linear one, rho~ = alpha†, here of a network's linear piece:

    >>> from captum_alignment import alignment, linear_analysis
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3)).double()
    >>> x = torch.rand(4, 6, dtype=torch.float64)
    >>> r = linear_analysis(net, x)
    >>> z = r.binarized_gradient
    >>> margin = homogeneous_decomposition(net, x, of="margin", rival=r.rival)
    >>> list(margin.by_parameter)
    ['0.bias', '2.bias']
    >>> shifted = x + margin.bias.unsqueeze(1) * z / z.square().sum(1, keepdim=True)
    >>> torch.allclose(alignment(shifted, z), r.linearized_robustness)
    True
    >>> torch.allclose(alignment(x, z), r.linearized_robustness)
    False
    """
    if of not in ("score", "margin"):
        raise ValueError(f"of: got {of!r}, expected 'score' or 'margin'")
    if of == "score" and rival is not None:
        raise ValueError("rival: only a margin has one, expected None or of='margin'")
    tensors = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size)
    n = len(tensors[0])
    classes = as_target(target, n), _for_rival(as_target, rival, n)
    parts = [
        _decompose(trace, t, j, of)
        for trace, t, j in traces(forward_func, internal_batch_size, tensors, additional_forward_args, *classes)
    ]
    return parts[0] if len(parts) == 1 else _join(parts)


def _join(parts: list[HomogeneousDecomposition]) -> HomogeneousDecomposition:
    terms = join_terms([part.by_parameter for part in parts], [len(part.score) for part in parts])
    columns = ("score", "input", "bias", "residual", "target", "rival")
    joined: dict[str, Any] = {name: [getattr(part, name) for part in parts] for name in columns}
    joined = {name: None if column[0] is None else torch.cat(column) for name, column in joined.items()}
    return HomogeneousDecomposition(by_parameter=terms, **joined)


def _for_rival(check: Callable[..., Any], *args: Any) -> Any:
    """What ``check`` returns or raises about a target, said of the rival."""
    try:
        return check(*args)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("target", "rival", 1)) from None


def _decompose(trace: Trace, target: Tensor | None, rival: Tensor | None, of: str) -> HomogeneousDecomposition:
    graph = trace.graph
    scores = graph.scores.detach().to(accumulation_dtype(graph.scores.dtype))
    others = None
    if of == "score":
        classes, weights = reported(graph.output.detach(), target)
    else:
        classes = resolve_target(target, graph.scores)
        if rival is None:
            others = nearest_rival(graph, classes, 2.0).rival
        else:
            others = _for_rival(resolve_target, rival, scores)
        if (others == classes).any():
            raise ValueError("rival: got the target's own class, expected another one")
        weights = graph.one_hot(classes) - graph.one_hot(others)
    split = split_score(trace, weights)
    bias = sum(split.terms.values(), torch.zeros_like(split.score))
    residual = split.score - split.linear - bias
    return HomogeneousDecomposition(split.score, split.linear, bias, split.terms, residual, classes, others)


class SplitScore(NamedTuple):
    """A score Psi (N,), <x, ∇Psi>, the contribution of every additive term, and ∇Psi."""

    score: Tensor
    linear: Tensor
    terms: dict[str, Tensor]
    gradient: Tensors


def split_score(trace: Trace, weights: Tensor) -> SplitScore:
    """The parts of the score that ``weights`` (N, K) make of the model's scores (N, K)."""
    graph = trace.graph
    scores = graph.scores.detach().to(accumulation_dtype(graph.scores.dtype))
    # Not the product with the weights: a masked class has a score of -inf.
    score = torch.where(weights == 0, 0, weights * scores).sum(1)
    n = len(score)
    gradient, terms = trace.gradient(weights, lambda constant, g: contribution(constant, g, n))
    return SplitScore(score, per_sample_dot(tuple(x.detach() for x in graph.inputs), gradient), terms, gradient)


def join_terms(parts: list[dict[str, Tensor]], sizes: list[int]) -> dict[str, Tensor]:
    """The terms of all parts; 0 where a part lacks one: a ReLU6 that does not saturate."""
    like = next((term for part in parts for term in part.values()), torch.empty(0))
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: torch.cat([p.get(name, like.new_zeros(n)) for p, n in zip(parts, sizes, strict=True)]) for name in names
    }
