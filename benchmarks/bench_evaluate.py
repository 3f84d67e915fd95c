"""Rows per second of `captum-alignment evaluate` on one and two processes, and its memory as samples grow.

    python -m benchmarks.bench_evaluate [--samples N] [--repeats R] [--memory]

Every process has one thread. Rates are those between the first part of every process and the last part of all, so that
starting, with what libraries load on first use, does not count; "whole" is the command with start and report. Runs
alternate; medians.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks._timing import exponent, table

_HERE = "benchmarks.bench_evaluate"


def convolutional() -> nn.Module:
    """A small untrained network for images of 28 x 28 pixels."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 4, 2), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10)]
    return nn.Sequential(*layers)


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))


class Images:
    """Random images of 28 x 28 pixels, made when they are asked for."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(index))


def run(model: str, samples: int, processes: int, *options: str) -> tuple[float, float]:
    """Rows per second of one evaluation, in parts of 100, and the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "captum_alignment", "evaluate"]
        command += ["--model", f"{_HERE}:{model}", "--data", f"{_HERE}:Images({samples})", "--out", str(out), *options]
        command += ["--device", "cpu", "--part-size", "100"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        whole = time.perf_counter() - start
        written = sorted(part.stat().st_mtime for part in out.glob("parts/*"))
        return 100 * (len(written) - processes) / (written[-1] - written[processes - 1]), whole


def scaling(samples: int, repeats: int) -> None:
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, runs in found.items():
            runs.append(run("convolutional", samples, processes))
    medians = {
        processes: [statistics.median(column) for column in zip(*runs, strict=True)]
        for processes, runs in found.items()
    }
    (one_rate, one_whole), rates = medians[1], [rate for rate, _ in medians.values()]
    rows = [
        [processes, samples, f"{rate:.1f}", f"{rate / one_rate:.2f}", f"{whole:.1f}", f"{one_whole / whole:.2f}"]
        for processes, (rate, whole) in medians.items()
    ]
    print(f"\n{os.cpu_count()} cores, one thread per process, median of {repeats}\n")
    table(["processes", "samples", "rows / s", "of one process", "whole, s", "one process / this"], rows)
    print(f"Fitted rate: processes^{exponent(list(medians), rates):.2f}.\n")


def memory(sizes: tuple[int, ...] = (10_000, 100_000)) -> None:
    rows = []
    for samples in sizes:  # growing, because the peak is that of all children so far
        rate, _ = run("dense", samples, 1, "--attacks", "gradient")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        rows.append([samples, f"{rate:.0f}", f"{peak:.0f}"])
    table(["samples", "rows / s", "peak MiB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="only the memory")
    arguments = parser.parse_args()
    if not arguments.memory:
        scaling(arguments.samples, arguments.repeats)
    memory()


if __name__ == "__main__":
    main()
