"""How do time and peak memory of `linear_analysis` grow with samples, batch size, classes and input size?"""

import resource
import subprocess
import sys

import torch
from torch import nn

from benchmarks._timing import DEVICE, machine, seconds, table
from captum_alignment import linear_analysis

#: samples, internal_batch_size, classes, pixels along a side
CASES = [
    (32, None, 10, 32),
    (128, None, 10, 32),
    (128, 32, 10, 32),
    (32, None, 100, 32),
    (8, None, 1000, 32),
    (8, 2, 1000, 32),
    (32, None, 10, 64),
    (32, None, 10, 128),
]


def net(classes: int) -> nn.Module:
    """A small convolutional network for any input size."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 32), (32, 64), (64, 128))]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, classes)).eval().to(DEVICE)


def peak() -> float:
    """The most MiB that this process, or the accelerator, has held so far."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def one(samples: int, batch: int | None, classes: int, side: int) -> None:
    """Prints the seconds of one case and by how many MiB it raised the peak."""
    model = net(classes)
    linear_analysis(model, torch.rand(1, 3, 8, 8, device=DEVICE))
    x, before = torch.rand(samples, 3, side, side, device=DEVICE), peak()
    print(seconds(lambda: linear_analysis(model, x, internal_batch_size=batch)), peak() - before)


def main():
    rows = []
    for case in CASES:
        # A process for each case: the peak of a process never falls.
        command = [sys.executable, "-m", "benchmarks.bench_memory", *map(str, case)]
        taken, memory = map(float, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
        rows.append([case[0], case[1] or "all", *case[2:], taken, memory])
    print(f"## Growth and memory ({machine()})\n")
    table(["samples", "internal_batch_size", "classes", "side", "s", "peak MiB"], rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(*(None if value == "None" else int(value) for value in sys.argv[1:]))  # pyright: ignore
    else:
        main()
