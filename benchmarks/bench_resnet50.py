"""What does a ResNet-50 cost: seconds and peak memory of each call on photographs of 224 x 224 pixels."""

import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional as F
from torchvision.models import resnet50

from benchmarks._timing import DEVICE, machine, table
from captum_alignment import Alignment, adversarial_distance, linear_analysis
from captum_alignment.metrics import homogeneous_decomposition
from captum_alignment.training import LocalLipschitz

IMAGES = 1


def step(model, x, term):
    model.train()
    x = x.clone().requires_grad_(term is not None)
    loss = F.cross_entropy(model(x), torch.zeros(len(x), dtype=torch.long, device=x.device))
    if term is not None:
        loss = loss + term.from_loss(loss, x)
    loss.backward()


CALLS = {
    "forward": lambda model, x: model(x).sum().item(),
    "Alignment": lambda model, x: Alignment(model)(x),
    "linear_analysis, K = 1000": lambda model, x: linear_analysis(model, x),
    "homogeneous_decomposition": lambda model, x: homogeneous_decomposition(model, x),
    "adversarial_distance, fast": lambda model, x: adversarial_distance(model, x),
    "training step, plain": lambda model, x: step(model, x, None),
    "training step, shared LocalLipschitz": lambda model, x: step(model, x, LocalLipschitz(1e-3)),
}


def peak() -> float:
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def one(name: str) -> None:
    """Prints the seconds of one call and by how many MiB it raised the peak."""
    torch.manual_seed(0)
    # The weights are random: what a call costs depends on them little, but for the number of an attack's steps.
    model, x = resnet50().eval().to(DEVICE), torch.rand(IMAGES, 3, 224, 224, device=DEVICE)
    with torch.no_grad():
        model(x[:1])
    before, start = peak(), time.perf_counter()
    CALLS[name](model, x)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    print(time.perf_counter() - start, peak() - before)


def main() -> None:
    rows = []
    for name in CALLS:  # a process for each: the peak of a process never falls
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.bench_resnet50", name]
        taken, memory = map(float, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
        rows.append([name, taken, taken / rows[0][1] if rows else 1.0, memory])
    print(f"## ResNet-50, {IMAGES} image of 224 x 224 ({machine()})\n")
    table(["call", "s", "/ forward", "peak MiB"], rows)


if __name__ == "__main__":
    one(sys.argv[1]) if len(sys.argv) > 1 else main()
