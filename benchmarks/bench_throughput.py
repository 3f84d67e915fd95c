"""Where the time of `evaluate` goes: samples per second, and of each part the seconds inside and outside the model.

    python -m benchmarks.bench_throughput [CASE ...]

Goal: outside model passes at most 5 % of the time for large networks. Processor seconds of one process.
"""

import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn

from benchmarks._timing import DEVICE, machine, table
from benchmarks._zoo import available, images, network
from captum_alignment.robust import GradientAttack
from captum_alignment.study import evaluate, report
from captum_alignment.study.evaluation import _evaluate, _measure, _work
from captum_alignment.study.evaluation._chance import ChanceLevels
from captum_alignment.study.load import Samples


def _untrained(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval().to(DEVICE)


def _transformer() -> nn.Module:
    net = torchvision.models.vit_b_16()
    nn.init.trunc_normal_(net.heads.head.weight, std=0.02)  # which torchvision starts at 0: there would be no gradient
    return net


def _photographs(n: int) -> Tensor:
    return images("imagenet", n)[:, :, :224, :224] if available() else torch.rand(n, 3, 224, 224)


#: Network, images, attacks.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], Any]] = {
    "mnist_cnn, linear quantities and one step": (
        lambda: network("mnist_cnn"),
        lambda: images("mnist_cnn", 2000),
        {"step": GradientAttack(steps=1)},
    ),
    "mnist_cnn, fast": (lambda: network("mnist_cnn"), lambda: images("mnist_cnn", 100), "fast"),
    "ResNet-50, K = 1000, fast": (
        lambda: _untrained(torchvision.models.resnet50),
        lambda: _photographs(2),
        "fast",
    ),
    "ViT-B/16, K = 1000, ten gradient steps": (
        lambda: _untrained(_transformer),
        lambda: _photographs(1),
        {"steps": GradientAttack(steps=10)},
    ),
}
#: What belongs to which part: the module in which a function is looked up, and its name there.
PARTS = {
    "reading": [(Samples, "__getitem__")],
    "linear quantities": [(_measure, "linear_analysis"), (_measure, "explain"), (_work, "usable_scores")],
    "attacks": [(_measure, "adversarial_distance")],
    "chance levels": [(ChanceLevels, "columns")],
    "writing": [(_evaluate, "write_table"), (_evaluate, "_finish"), (_work, "typed")],
}


class Clock:
    """Processor seconds of each part, inside and outside model passes; what is inside another counts once."""

    def __init__(self) -> None:
        self.inside: defaultdict[str, float] = defaultdict(float)
        self.outside: defaultdict[str, float] = defaultdict(float)
        self._open = ["the rest"]
        self._since, self._passes = time.process_time(), 0

    def _book(self) -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter() if DEVICE == "cuda" else time.process_time()
        (self.inside if self._passes else self.outside)[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def begin(self, *_: Any) -> None:
        self._book()
        self._passes += 1

    def end(self, *_: Any) -> None:
        self._book()
        self._passes -= 1

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def model_pass(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.begin()
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return counted


def measured(net: nn.Module, x: Tensor, attacks: Any) -> Clock:
    """One evaluation with its report."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        first = (x[:1], torch.zeros(1, dtype=torch.long))
        evaluate(net, first, out=Path(folder, "first"), attacks={"step": GradientAttack(steps=1)})
        clock = Clock()
        for handle in (net.register_forward_pre_hook(clock.begin), net.register_forward_hook(clock.end)):
            stack.callback(handle.remove)
        stack.enter_context(patch("torch.autograd.grad", clock.model_pass(torch.autograd.grad)))
        for name, places in PARTS.items():
            for owner, attribute in places:
                stack.enter_context(patch.object(owner, attribute, clock.timed(name, getattr(owner, attribute))))
        out = Path(folder, "run")
        with clock.part("the rest"):
            evaluate(net, (x, torch.zeros(len(x), dtype=torch.long)), out=out, attacks=attacks, read=False)
        with clock.part("report"):
            report([out])
    return clock


def main() -> None:
    torch.set_num_threads(1)
    print(f"## Where the time of `evaluate` goes ({machine()})\n")
    for name, (make, images_of, attacks) in CASES.items():
        if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
            continue
        if name.startswith("mnist") and not available():
            continue
        net, x = make(), images_of()
        clock = measured(net, x, attacks)
        names = [*PARTS, "report", "the rest"]
        total = sum(clock.inside.values()) + sum(clock.outside.values())
        rows = [[part, clock.inside[part], clock.outside[part], f"{clock.outside[part] / total:.1%}"] for part in names]
        rows.append(["all", sum(clock.inside.values()), total - sum(clock.inside.values()), ""])
        rows[-1][-1] = f"{rows[-1][2] / total:.1%}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"{name}: {len(x)} samples, {len(x) / total:.3g} a second, peak {peak:.0f} MiB\n")
        table(["part", "s in model passes", "s outside", "share outside"], rows)


if __name__ == "__main__":
    main()
