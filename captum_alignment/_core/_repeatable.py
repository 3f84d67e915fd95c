"""The border, second part: scores of a sample must not depend on chance or on the other samples of its batch."""

import math
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_alignment._core._inputs import Tensors, take
from captum_alignment._core._model import is_quantised, modules_behind

#: From inputs and additional arguments to one row for each sample.
Run: TypeAlias = Callable[[Tensors, Any], Tensor]

#: Repetitions where random numbers are drawn: chance of 10 % in a forward pass escapes them once in 29 cases.
_REPEATS = 32
#: Differences that are rounding, as shares of the largest score. Between batches of other sizes, where more is tried
#: again; between passes of the same shapes; and the most that mixed precision does to batches of other sizes.
_TIGHT, _LOOSE, _COARSE = 1e-5, 5e-4, 0.1


def check_repeatable(
    run: Run,
    inputs: Tensors,
    args: Any = None,
    *,
    model: Any,
    name: str = "forward_func",
    size: int | None = None,
    whole: Tensor | None = None,
) -> None:
    """A `ValueError` if what ``run(inputs, args)`` returns for a sample depends on chance or on its company.

    Decided by behaviour, whatever the cause: the first sample and the last, beside each other and alone (two, because
    one may lie where the model is flat). Where they differ by more than rounding, passes of equal shapes decide, which
    round alike; where random numbers are drawn, many of them do.
    ``model`` is what runs, to name the part to blame; ``size`` the number of samples that it will be given at a time;
    ``whole`` what it returned for all of these, if that is known: then one pass over the two is mostly enough.
    """
    probe = _Probe(run, inputs, args, size)
    with torch.no_grad():
        before = _random_state(inputs[0].device)
        if whole is not None and len(whole) > 2 and probe.agrees(whole) and _random_state(inputs[0].device) == before:
            return
        beside, alone = probe.find_company(), probe.alone()
        if beside is None:  # it takes no batch at all: its own error will come where it is needed
            return
        drawn = _random_state(inputs[0].device) != before
        if alone is not None and not drawn and _close(beside, alone, _TIGHT):
            return
        if not _close(beside, probe.beside(), _LOOSE) or (drawn and probe.is_random()):
            raise ValueError(f"{name}: {_blame(model, name, by_chance=True)}")
        if not _close(beside, probe.repeated(), _LOOSE) or (alone is not None and not _close(beside, alone, _COARSE)):
            raise ValueError(f"{name}: {_blame(model, name, by_chance=False)}")


class _Probe:
    """What is returned for the first sample and the last (R, K) in different company; R = 1 where there is one."""

    def __init__(self, run: Run, inputs: Tensors, args: Any, size: int | None) -> None:
        self._run, self._inputs, self._args = run, inputs, args
        self._n = len(inputs[0])
        self._size = min(size or self._n, self._n)
        self._company: list[int] = []

    def agrees(self, whole: Tensor) -> bool:
        """Whether the two, beside each other, get what they got among all."""
        self._company = [0, self._n - 1]
        found = self._try(self._company)
        return found is not None and _close(found, whole[self._company], _TIGHT)

    def find_company(self) -> Tensor | None:
        """Beside the last sample; where the model takes no pairs, in a batch of its own size; else with nobody."""
        for company in ([0, self._n - 1], list(range(self._size)), [0]):
            self._company = company
            found = self._try(company)
            if found is not None:
                return found
        return None

    def alone(self) -> Tensor | None:
        """None where the model takes no single sample: one that squeezes its output, or needs a batch of one size."""
        return self._try(*([i] for i in self._ends()))

    def beside(self) -> Tensor:
        return self._rows(self._company)

    def repeated(self) -> Tensor:
        """Beside itself: a batch of the same shape."""
        return self._rows(*([i] * len(self._company) for i in self._ends()), blank=False)

    def is_random(self) -> bool:
        """Whether many passes, which draw from the global generators, ever differ."""
        device = self._inputs[0].device
        first = self.beside()
        ends = _random_state(device)
        for _ in range(_REPEATS):
            if not _close(first, self.beside(), _LOOSE):
                return True
            if _random_state(device) == ends:  # the model seeds itself: always the same numbers
                return False
        return False

    def _ends(self) -> list[int]:
        return sorted({self._company[0], self._company[-1]})

    def _try(self, *batches: list[int]) -> Tensor | None:
        try:
            return self._rows(*batches)
        except Exception:
            return None

    def _rows(self, *batches: list[int], blank: bool = True) -> Tensor:
        """The first row of each batch; of a single one that holds both ends, both."""
        rows = [self._scores(index, blank=blank) for index in batches]
        if len(batches) == 1 and len(self._ends()) == 2:
            return rows[0][[0, -1]]
        return torch.stack([scores[0] for scores in rows])

    def _scores(self, index: list[int], *, blank: bool) -> Tensor:
        rows = torch.tensor(index, device=self._inputs[0].device)
        inputs, args = take((self._inputs, self._args), rows, self._n)
        if blank and self._n == 1:  # the only sample beside a blank
            inputs = tuple(torch.cat([x[:1], torch.zeros_like(x[1:])]) for x in inputs)
        return self._run(inputs, args)


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    tolerance = tolerance * 1e-6 if a.dtype == torch.float64 else tolerance
    gap, most = torch.stack([(a - b).abs().max(), a.abs().max()]).tolist()
    if gap <= tolerance * most < math.inf:  # mostly, and a quarter of the cost of what follows
        return True
    both = torch.stack([a, b])
    scale = both.abs().masked_fill(~both.isfinite(), 0).max()
    equal = torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)
    return bool((equal | ((a - b).abs() <= tolerance * scale)).all())


def _random_state(device: torch.device) -> tuple[Any, ...]:
    states = [torch.get_rng_state()]
    own: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(own, "get_rng_state"):
        states.append(own.get_rng_state() if device.type == "mps" else own.get_rng_state(device))
    return (*(state.numpy().tobytes() for state in states), random.getstate())


def _blame(model: Any, name: str, *, by_chance: bool) -> str:
    """What makes a forward pass unrepeatable, by the modules that can be seen."""
    if is_quantised(model):
        return "a quantised model, whose scores change with the other samples of a batch; expected floating weights"
    named = [pair for module in modules_behind(model) for pair in module.named_modules()]
    suspects = [f"{type(m).__name__} {path!r}" for path, m in named if (_is_random(m) if by_chance else _mixes(m))]
    on = "chance" if by_chance else "the other samples"
    if not suspects:
        cause = "two forward passes differ" if by_chance else "its scores change with the batch that it is in"
        return f"a sample's results depend on {on} ({cause}); expected a deterministic forward pass of each sample"
    listed = ", ".join(suspects[:3]) + (f" and {len(suspects) - 3} more" if len(suspects) > 3 else "")
    verb = "is" if len(suspects) == 1 else "are"
    owner = "model" if name == "forward_func" else name
    return f"{listed} {verb} in training mode, so a sample's results depend on {on}; call {owner}.eval() first"


def _mixes(module: nn.Module) -> bool:
    """Whether a module normalises by the statistics of the batch."""
    norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    own = isinstance(module, nn.modules.instancenorm._InstanceNorm)
    return norm and not own and (module.training or module.running_mean is None)


def _is_random(module: nn.Module) -> bool:
    """Whether a module in training mode has a rate at which it drops, by the names that torch and timm give it."""
    rates = (getattr(module, rate, 0) for rate in ("p", "drop_prob", "dropout"))
    dropping = any(isinstance(rate, float) and rate > 0 for rate in rates)
    return module.training and (dropping or isinstance(module, nn.RReLU))
