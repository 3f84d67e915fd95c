"""Model randomisation: does an attribution change when the network forgets what it has learnt?"""

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_alignment._core._features import find_layer
from captum_alignment._core._gradients import checked_inputs, for_autograd
from captum_alignment._core._inputs import (
    InputsT,
    Tensors,
    as_tensors,
    like_inputs,
    to_dataframe,
)
from captum_alignment._core._random import draw_seeds, seeded
from captum_alignment._core._scores import as_scores, as_target, resolve_target
from captum_alignment._core._statistics import describe
from captum_alignment.metrics._layers import reinitialise, run_order
from captum_alignment.metrics._rank_correlation import rank_correlation

if TYPE_CHECKING:
    from pandas import DataFrame

Mode: TypeAlias = Literal["cascading", "independent"]
#: attribute(model, inputs, target) -> a tensor or a tuple of tensors; typed loosely, as Captum's methods are.
Attribute: TypeAlias = Callable[[Any, Any, Any], Any]

_RUNS_ORIGINAL = "attribute: runs the original model, expected it to explain the model that it is given"
_REACHES_BACK = (
    "model: its forward runs layers that a copy does not have as its own (by a closure, a global or a lambda), so that "
    "they cannot be randomised; expected it to reach them through self"
)


@dataclass(frozen=True)
class RandomizationCheck:
    """Rank correlations of the attributions with those of the trained network, on the inputs' device.

    In float64, or float32 on a device that lacks it.

    Attributes:
        layers: the L layers in the order in which they were randomised.
        similarity: (L, N) of the signed attributions. absolute_similarity: (L, N) of their absolute values. Both are
            NaN where a map is constant or has NaN entries.
        target: the explained class (N,). mode: "cascading" or "independent".
    """

    layers: tuple[str, ...]
    similarity: Tensor
    absolute_similarity: Tensor
    target: Tensor
    mode: Mode

    def to_dataframe(self) -> "DataFrame":
        """One row per layer and sample: sample, target and the two similarities, layer first; needs pandas."""
        count, n = self.similarity.shape
        frame = to_dataframe(
            {
                "sample": torch.arange(n).repeat(count),
                "target": self.target.repeat(count),
                "similarity": self.similarity.flatten(),
                "absolute_similarity": self.absolute_similarity.flatten(),
            }
        )
        frame.insert(0, "layer", [layer for layer in self.layers for _ in range(n)])
        return frame

    def __str__(self) -> str:
        width = max(map(len, ("layer", *self.layers)))
        lines = [
            f"rank correlation with the trained network's maps, {self.mode}: medians over {len(self.target)} samples",
            f"{'layer':<{width}}  {'signed':<32}absolute",
        ]
        for layer, signed, absolute in zip(self.layers, self.similarity, self.absolute_similarity, strict=True):
            lines.append(f"{layer:<{width}}{describe(signed):<34}{describe(absolute)}")
        return "\n".join(lines)


def randomization_check(
    model: nn.Module,
    attribute: Attribute,
    inputs: InputsT,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    mode: Mode = "cascading",
    layers: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> RandomizationCheck:
    """The sanity check of Adebayo et al. (2018): attributions as layer after layer loses its learnt parameters.

    An attribution that explains the model must change, so its similarity must fall. One that stays near 1 shows the
    input, as an edge detector does. Absolute maps often keep a high similarity where signed ones lose theirs.

    A layer is re-initialised by its own ``reset_parameters``; parameters that this leaves as they are (a module without
    one, a parametrised weight) are permuted. All of it happens on a copy: the model stays as it is, bit for bit, also
    after an exception. ``attribute`` sees the same random numbers every time, so that the noise of a `NoiseTunnel` is
    not taken for a difference, and the global ones stay where they were.

    Args:
        model: an `nn.Module` returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        attribute: ``attribute(model, inputs, target)`` returns the attributions of the model that it is given, which is
            the copy, e.g. ``lambda m, x, t: Saliency(m).attribute(x, target=t, abs=False)``. Its inputs require grad.
            For a model of one output ``target`` is None, by which Captum takes that output.
        inputs: floating tensor (N, ...) or a tuple of such.
        target: the explained class, an int or (N,); None is the class that the trained model predicts. It stays the
            same throughout.
        additional_forward_args: passed on after ``inputs`` where the model is run for its prediction.
        mode: "cascading" randomises one layer after the other, each with all before it; "independent" one at a time.
        layers: the names of the layers in their order, as in ``model.named_modules()``; one that holds others stands
            for all of them. None is every module with parameters of its own, from the last that runs to the first.
        generator: of the new parameters; None is a fixed private one.

    Raises:
        TypeError: a model that is not a module, an ``attribute`` that does not take (model, inputs, target),
            attributions that are not floating tensors.
        ValueError: unknown layers or mode, a model without parameters, or one that cannot be copied with its
            layers; an ``attribute`` that runs the original model or returns a delta too; attributions whose shape
            changes; a parametrised layer that keeps its values; inputs and targets as in
            `captum_alignment.linear_analysis`.

    >>> from captum.attr import InputXGradient
    >>> net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> check = randomization_check(net, lambda m, x, t: InputXGradient(m).attribute(x, target=t), torch.rand(5, 6))
    >>> check.layers, check.similarity.shape
    (('2', '0'), torch.Size([2, 5]))
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode: got {mode!r}, expected 'cascading' or 'independent'")
    find_layer(model, "")  # a TypeError unless it is a module
    _check_attribute(attribute)
    if layers is not None and len(layers) == 0:
        raise ValueError("layers: got no names, expected at least one, or None")
    x = checked_inputs(model, inputs, additional_forward_args)
    device = x[0].device
    with torch.inference_mode(False), torch.enable_grad():
        copy = _copied(model)
        x, args, chosen = for_autograd((x, additional_forward_args, as_target(target, len(x[0]))))
        with _refused(model.modules(), _REACHES_BACK):
            order, output = run_order(copy, x, args)
        classes = resolve_target(chosen, as_scores(output, len(x[0])))
        single = output.ndim == 1 or output.shape[1] == 1
        groups = order if layers is None else {name: list(find_layer(copy, name).modules()) for name in layers}
        noise, *seeds = draw_seeds(generator, 1 + len(groups))

        def maps() -> Tensors:
            leaves = tuple(t.clone().requires_grad_() for t in x)
            with seeded(noise, device), _refused([model], _RUNS_ORIGINAL):  # its parts may run: an explainer
                found = attribute(copy, like_inputs(leaves, inputs), None if single else classes.clone())
            if _has_delta(found, single_input=len(x) == 1):
                raise ValueError("attribute: got a pair, as of attributions and delta, expected the attributions alone")
            return tuple(t.detach() for t in as_tensors(found, "attributions"))

        original, similarities = maps(), []
        for seed, (name, modules) in zip(seeds, groups.items(), strict=True):
            with seeded(seed, device):
                reinitialise(modules, f"layers: {name!r}")
            found = maps()
            pairs = (found, original), (_absolute(found), _absolute(original))
            similarities.append(torch.stack([rank_correlation(*pair) for pair in pairs]))
            if mode == "independent":
                copy.load_state_dict(model.state_dict())
    signed, absolute = torch.stack(similarities, 1)
    return RandomizationCheck(tuple(groups), signed, absolute, classes, mode)


def _check_attribute(attribute: Any) -> None:
    what = "a function attribute(model, inputs, target) that makes its attribution of the model it is given"
    if not callable(attribute):
        raise TypeError(f"attribute: got {type(attribute).__name__}, expected {what}")
    try:
        inspect.signature(attribute).bind(None, None, None)
    except ValueError:  # a built-in one without a signature
        return
    except TypeError:
        raise TypeError(f"attribute: got one that cannot be called with three arguments, expected {what}") from None


def _has_delta(found: Any, *, single_input: bool) -> bool:
    """Whether these are attributions and a convergence delta, not the attributions of two inputs or outputs."""
    if not isinstance(found, tuple) or len(found) != 2:
        return False
    return isinstance(found[0], tuple) or (single_input and isinstance(found[1], Tensor) and found[1].ndim == 1)


def _absolute(maps: Tensors) -> Tensors:
    return tuple(t.abs() for t in maps)


def _copied(model: nn.Module) -> nn.Module:
    """A copy of the model; activations that its modules keep, which torch does not copy, lose their graph."""
    memo: dict[int, Any] = {}

    def collect(value: Any) -> None:
        if isinstance(value, Tensor) and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            collect(list(value.values()))

    for module in model.modules():
        collect(vars(module))
    try:
        return deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"model: cannot be copied ({error}), expected a module that deepcopy takes") from error


@contextmanager
def _refused(modules: Iterable[nn.Module], message: str) -> Iterator[None]:
    """A `ValueError` if any of the ``modules``, of which only copies are randomised, runs inside."""
    thread = threading.get_ident()  # others may run the model meanwhile

    def hook(*_: Any) -> None:
        if threading.get_ident() == thread:
            raise ValueError(message)

    handles = [module.register_forward_pre_hook(hook, prepend=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
