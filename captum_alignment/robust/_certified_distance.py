"""The distance to the decision boundary from below: a radius inside which no adversarial exists."""

import math
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_alignment._core._foolbox import Bounds
from captum_alignment._core._gradients import checked_inputs, for_autograd
from captum_alignment._core._inputs import ForwardFunc, InputsT, Tensors, batches, check_count, check_norm
from captum_alignment._core._piecewise_trace import trace
from captum_alignment._core._scores import as_target, resolve_target, run_scores
from captum_alignment.robust._bounds import check_inside, resolve_bounds
from captum_alignment.robust._certified_relaxation import Relaxation
from captum_alignment.robust._certified_search import Search

#: Steps of gradient ascent on the lower slopes, of a bound of the scores and of one of a unit inside.
_EFFORTS = {"fast": (0, 0), "medium": (20, 0), "thorough": (20, 10)}
#: Rows that run through the network at a time.
_ROWS = 1024


def certified_distance(
    forward_func: ForwardFunc,
    inputs: InputsT,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    norm: float = 2,
    bounds: Bounds | None = None,
    effort: str = "medium",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Tensor:
    """A lower bound of rho(x) = inf {‖e‖ : F(x + e) ≠ F(x)} (Etmann et al. 2019, Definition 1), per sample.

    Linear relaxation of the ReLUs, backwards through the network (Zhang et al. 2018, CROWN), with lower slopes that are
    optimised (Xu et al. 2021) and, in the end, for the points alone that a rival claims (Kotha et al. 2023). It holds
    for the network that the weights define in exact arithmetic; everything is computed in float64 and bounds are moved
    outwards by more than it rounds. It is a bound, and can be far below rho for deep networks that were not trained to
    be certified.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. Made of affine layers,
            (leaky) ReLU, clips, max and average pooling, skips and batch norm in eval mode.
        inputs: floating tensor (N, ...), or a tuple of such, one joint vector per sample.
        target: the class to leave, an int or (N,); None is the predicted class.
        additional_forward_args: passed on after ``inputs``, as in Captum; taken as constants.
        norm: 1, 2 or inf.
        bounds: (min, max) of every feature: only adversarials within count, which certifies more; None is all of space.
        effort: "fast" (fixed slopes), "medium" (slopes optimised for the scores) or "thorough" (also for every unit,
            then where each rival leads). Very deep networks end early with a small radius, in minutes a sample.
        internal_batch_size: at most that many rows of coefficients run at a time, by default 1024.
        show_progress: a progress bar over the samples.

    Returns:
        (N,) float64: no point nearer than this has another class. 0 where the class to leave is not predicted, or
        nothing is certified at 1e-8 of the linearized distance; inf where none lies within the bounds.

    Raises:
        NotPiecewiseLinear: a `ValueError` that names an operation that is not known to be piecewise linear.
        TypeError, ValueError: inputs that are not floating, empty, not finite or outside the bounds; scores of another
            shape; targets out of range; bounds that are not finite.

    >>> net = torch.nn.Linear(4, 2)
    >>> x = torch.rand(3, 4)
    >>> scores, difference = net(x).detach(), (net.weight[0] - net.weight[1]).norm()
    >>> exact = (scores[:, 0] - scores[:, 1]).abs() / difference
    >>> torch.allclose(certified_distance(net, x).float(), exact.detach(), rtol=1e-4)
    True
    """
    norm = check_norm(norm)
    if effort not in _EFFORTS:
        raise ValueError(f"effort: got {effort!r}, expected one of {', '.join(map(repr, _EFFORTS))}")
    if internal_batch_size is not None:
        check_count("internal_batch_size", internal_batch_size, also=" or None")
    tensors = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size)
    if bounds is not None:
        bounds = resolve_bounds(forward_func, bounds)
        if not all(map(math.isfinite, bounds)):
            raise ValueError(f"bounds: got {tuple(bounds)}, expected finite ones, or None for all of space")
        check_inside(tensors, bounds)
    classes = as_target(target, len(tensors[0]))
    with torch.inference_mode(False):
        samples = for_autograd((tensors, classes, additional_forward_args))
        rows = internal_batch_size or _ROWS
        found = [
            _certify(forward_func, x, label, args, norm, bounds, _EFFORTS[effort], rows)
            for x, label, args in tqdm(
                batches(1, *samples), total=len(tensors[0]), desc="certify", disable=not show_progress
            )
        ]
    return torch.tensor(found, dtype=torch.float64, device=tensors[0].device)


def _certify(
    forward_func: ForwardFunc,
    x: Tensors,
    target: Tensor | None,
    args: Any,
    norm: float,
    bounds: Bounds | None,
    steps: tuple[int, int],
    rows: int,
) -> float:
    """The radius of one sample (1, ...)."""
    with torch.no_grad():
        scores = run_scores(forward_func, x, args)
    label = int(resolve_target(target, scores))
    network = trace(forward_func, x, args)
    relaxation = Relaxation(network, tuple(part.double() for part in x), norm, bounds)
    search = Search(relaxation, label, rows)
    if int(scores.argmax(1)) != label or bool((search.gap <= 0).any()):
        return 0.0
    if not len(search.gap):
        return math.inf
    search.run((0, 0), coarse=steps != (0, 0))
    if steps != (0, 0) and not search.is_content():
        search.run(steps)
    if steps[1]:
        search.visit(steps[1])
    return search.certified * (1 - 1e-9)
