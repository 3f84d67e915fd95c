"""Rows per second of `captum-alignment evaluate` on one and two processes, and its memory as samples grow.

    python -m benchmarks.bench_evaluate [--samples N]

Every process has one thread. Times run from the manifest, written once model and data are there, to the merged table,
so that the start of the interpreter does not count. Runs alternate; medians.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks._timing import table

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


def run(model: str, samples: int, processes: int, *options: str) -> float:
    """Seconds of one evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "captum_alignment", "evaluate"]
        command += ["--model", f"{_HERE}:{model}", "--data", f"{_HERE}:Images({samples})", "--out", str(out), *options]
        command += ["--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return (out / "records.parquet").stat().st_mtime - (out / "manifest.json").stat().st_mtime


def scaling(samples: int, repeats: int = 3) -> None:
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, found in times.items():
            found.append(run("convolutional", samples, processes))
    rows = []
    for processes, found in times.items():
        rate = samples / statistics.median(found)
        rows.append(
            [processes, samples, f"{rate:.1f}", f"{statistics.median(times[1]) / statistics.median(found):.2f}"]
        )
    print(f"\n{os.cpu_count()} cores, one thread per process, median of {repeats}\n")
    table(["processes", "samples", "rows / s", "of one process"], rows)


def memory(sizes: tuple[int, ...] = (10_000, 100_000)) -> None:
    rows = []
    for samples in sizes:  # growing, because the peak is that of all children so far
        seconds = run("dense", samples, 1, "--attacks", "gradient")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        rows.append([samples, f"{samples / seconds:.0f}", f"{peak:.0f}"])
    table(["samples", "rows / s", "peak MiB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--memory", action="store_true", help="only the memory")
    arguments = parser.parse_args()
    if not arguments.memory:
        scaling(arguments.samples)
    memory()


if __name__ == "__main__":
    main()
