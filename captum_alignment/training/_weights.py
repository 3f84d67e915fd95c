"""Which weight? Short fits on the user's own data, on a scale that the data set."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import Tensors, as_tensors, check_count, check_norm, dual, per_sample_dot, unit
from captum_alignment._core._nearest import nearest_rival
from captum_alignment._core._random import seeded
from captum_alignment._core._scores import as_target, resolve_target
from captum_alignment.training._batch import Unpack, unpacked
from captum_alignment.training._forward import evaluating, scores_of
from captum_alignment.training._regularizers import LocalLipschitz, Regularizer, check_factor


@dataclass(frozen=True)
class WeightSweep:
    """What short fits with several weights gave; the first has weight 0.

    Attributes:
        weights: those tried.
        accuracy, linearized_robustness, alignment: of each fit on the held-out samples: the share that is classified
            rightly, and the medians of ρ~ and α of the predicted class.
        unit: the weight at which the term of the plain fit would be log K, the loss of guessing.
        best: the weight of largest median ρ~ among those that cost at most ``largest_drop`` in accuracy; 0 if none
            gives more than plain training.
    """

    weights: tuple[float, ...]
    accuracy: tuple[float, ...]
    linearized_robustness: tuple[float, ...]
    alignment: tuple[float, ...]
    unit: float
    best: float

    def __str__(self) -> str:
        lines = ["    weight   of unit   accuracy   median rho~   median alpha"]
        for w, a, r, alpha in zip(self.weights, self.accuracy, self.linearized_robustness, self.alignment, strict=True):
            mark = "  <" if w == self.best else ""
            lines.append(f"{w:10.3g}{w / self.unit:10.3g}{a:11.1%}{r:14.3g}{alpha:15.3g}{mark}")
        return "\n".join(lines)


def suggest_weights(
    model: nn.Module,
    train: Iterable[Any],
    held_out: Any,
    *,
    regularizer: Regularizer | None = None,
    relative: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0),
    steps: int = 300,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    loss: Callable[[Tensor, Any], Tensor] = F.cross_entropy,
    schedule: Callable[[int], float] | None = None,
    unpack: Unpack | None = None,
    norm: float = 2,
    largest_drop: float = 0.02,
) -> WeightSweep:
    """Short fits of copies of ``model``: plain, and with weights around the one that the data suggest.

    The scale of a penalty depends on the model, the data and the units of the input: useful weights of one term differ
    by factors of a thousand. Its *unit* here is log K divided by the mean penalty of the plain fit: the weight with
    which the term, if training did nothing about it, would be as large as the loss of guessing. On digits .1 to 1 units
    made models more robust, at 0 to 5 points of accuracy; 3 units could ruin them (``docs/training.md``). The fits are
    short: they rank weights, and a full training has to confirm the choice.

    Args:
        model: returns (N, K) logits, or (N,) / (N, 1): the logit of class 1; stays as it is, a copy starts each fit.
        train: batches ``(inputs, target)``, gone through again and again; each fit sees the same, as far as they
            depend on torch's global generator.
        held_out: ``(inputs, target)``, a few hundred samples.
        regularizer: whose weight is asked for; None is `LocalLipschitz`. Its own weight is not used.
        relative: the weights to try, in units.
        steps: of each fit.
        optimizer: makes one from parameters; by default Adam with a learning rate of .001.
        loss: of scores and target.
        schedule: a factor on the term for each step, e.g. a warm-up ``lambda step: min(1, step / 100)``.
        unpack: maps a batch to ``(inputs, target, *extras)``.
        norm: 1, 2 or inf, in which ρ~ is measured.
        largest_drop: the accuracy that ``best`` may cost, as a share.

    Raises:
        TypeError: batches of the wrong kind.
        ValueError: a regularizer without a weight, a penalty of 0, numbers out of range, no batches.

    >>> net = torch.nn.Linear(4, 3)
    >>> x, y = torch.rand(60, 4), torch.arange(60) % 3
    >>> sweep = suggest_weights(net, [(x[:40], y[:40])], (x[40:], y[40:]), steps=5)
    """
    check_count("steps", steps)
    check_norm(norm)
    if not isinstance(held_out, (tuple, list)):
        kind = type(held_out).__name__
        raise TypeError(f"held_out: got {kind}, expected a pair (inputs, target), such as one batch of a loader")
    one = (regularizer or LocalLipschitz(1.0)).replaced(weight=1.0)
    factors = [check_factor(factor, "relative") for factor in relative]

    def fit(weight: float) -> nn.Module:
        return _fit(model, train, one.replaced(weight=weight), steps, optimizer or _adam, loss, schedule, unpack)

    plain = fit(0.0)
    x, y, *_ = _on(plain, unpacked(held_out, None))
    scale = _unit(plain, train, one, unpack)
    weights = [0.0, *(factor * scale for factor in factors)]
    rows = [_measure(fit(w) if w else plain, as_tensors(x), y, check_norm(norm)) for w in weights]
    accuracy, robustness, alignment = zip(*rows, strict=True)
    kept = [i for i in range(len(rows)) if accuracy[i] >= accuracy[0] - largest_drop]
    best = weights[max(kept, key=lambda i: robustness[i])]
    return WeightSweep(tuple(weights), accuracy, robustness, alignment, scale, best)


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def _fit(
    model: nn.Module,
    train: Iterable[Any],
    regularizer: Regularizer,
    steps: int,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    loss: Callable[[Tensor, Any], Tensor],
    schedule: Callable[[int], float] | None,
    unpack: Unpack | None,
) -> nn.Module:
    """A trained copy of ``model``; chance is the same in every call, that of the regularizer, too."""
    model = copy.deepcopy(model).train()
    chance = regularizer.state_dict()
    step = optimizer([p for p in model.parameters() if p.requires_grad])
    with seeded(0, next(model.parameters()).device), torch.enable_grad():
        for index, batch in zip(range(steps), _forever(train), strict=False):
            inputs, target, *extras = _on(model, unpacked(batch, unpack))
            factor = 1.0 if schedule is None else check_factor(schedule(index), "schedule")
            total = loss(model(*(inputs if isinstance(inputs, tuple) else (inputs,))), target)
            if factor * regularizer.weight:
                total = total + factor * regularizer(model, inputs, target, *extras)
            step.zero_grad()
            total.backward()
            step.step()
    regularizer.load_state_dict(chance)
    return model.eval()


def _forever(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("train: got no batches, expected something that can be gone through again and again")


def _on(model: nn.Module, unpacked_batch: tuple[Any, ...]) -> tuple[Any, ...]:
    device = next(model.parameters()).device

    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(move, value))
        return value.to(device) if isinstance(value, Tensor) else value

    return tuple(map(move, unpacked_batch))


def _unit(model: nn.Module, train: Iterable[Any], one: Regularizer, unpack: Unpack | None) -> float:
    """log K divided by the mean penalty over ten training batches."""
    chance, penalties, classes = one.state_dict(), [], 2
    with torch.no_grad(), seeded(0, next(model.parameters()).device):
        for _, batch in zip(range(10), train, strict=False):
            inputs, target, *extras = _on(model, unpacked(batch, unpack))
            penalties.append(float(one(model, inputs, target, *extras)))
            classes = scores_of(model, as_tensors(inputs)).shape[1]
    one.load_state_dict(chance)
    mean = sum(penalties) / len(penalties)
    if not (math.isfinite(mean) and mean > 0):
        raise ValueError(f"regularizer: its penalty is {mean} after a plain fit, expected a finite positive number")
    return math.log(classes) / mean


def _measure(model: nn.Module, inputs: Tensors, target: Any, norm: float) -> tuple[float, float, float]:
    """Accuracy, median linearized robustness and median alignment."""
    with evaluating(model):
        graph = ScoreGraph(model, inputs)
        predicted = graph.scores.detach().argmax(1)
        labels = resolve_target(as_target(target, len(predicted)), graph.scores)
        gradient = graph.gradient(graph.one_hot(predicted))
        alignment = per_sample_dot(tuple(x.detach() for x in graph.inputs), unit(gradient, dual(norm))).abs()
        robustness = nearest_rival(graph, predicted, norm, None, None).distance
    accuracy = (predicted == labels).cpu().double().mean()
    return float(accuracy), float(robustness.median()), float(alignment.median())
