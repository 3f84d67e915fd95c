"""What the benchmarks share: alternating measurement, counted passes, a table."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from types import SimpleNamespace

import torch
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, the device's work included."""
    start = time.perf_counter()
    function()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def effort(function: Callable[[], object]) -> float:
    """Processor seconds of one call, for which it does not matter what else runs; on a GPU wall time."""
    if DEVICE == "cuda":
        return seconds(function)
    start = time.process_time()
    function()
    return time.process_time() - start


def alternate(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function over rounds in which all take turns, after one warm-up each."""
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: median(values) for name, values in times.items()}


@contextmanager
def counted(net: nn.Module) -> Iterator[SimpleNamespace]:
    """Counts the samples that go forward through ``net``, and the backward calls."""
    passes = SimpleNamespace(forward=0, samples=0, backward=0)
    grad, backward = torch.autograd.grad, torch.Tensor.backward

    def on_forward(_module, args, _output):
        passes.forward += 1
        passes.samples += len(args[0])

    def count(function):
        def counting(*args, **kwargs):
            passes.backward += 1
            return function(*args, **kwargs)

        return counting

    hook = net.register_forward_hook(on_forward)
    torch.autograd.grad, torch.Tensor.backward = count(grad), count(backward)
    try:
        yield passes
    finally:
        torch.autograd.grad, torch.Tensor.backward = grad, backward
        hook.remove()


def machine() -> str:
    """The machine in words."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The b of cost = a · size^b, fitted to logarithms by least squares: 1 is linear, 0 constant."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (sizes, costs))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def table(header: list[str], rows: list[list[object]]) -> None:
    """A Markdown table on the terminal; the first column is text."""
    print("| " + " | ".join(header) + " |")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    print()
