"""Four threads on one model: each gets what it gets alone, and leaves nothing behind."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import foolbox
import pytest
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn

from captum_alignment import Alignment, LinearizedRobustness, adversarial_distance, linear_analysis
from captum_alignment.attr import FullGradient
from captum_alignment.metrics import (
    deletion_curve,
    homogeneous_decomposition,
    linearity_profile,
    randomization_check,
)
from captum_alignment.robust import FoolboxPerturbation
from captum_alignment.training import adversarial_examples, soft_labels

from .nets import assert_unchanged, snapshot

THREADS, ROUNDS = 4, 3


def _net() -> Any:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double().eval()


def _terms(f: Any, x: Tensor) -> Tensor:
    found = homogeneous_decomposition(f, x)
    return torch.stack([found.score, found.input, found.residual, *found.by_parameter.values()])


def _similarity(f: Any, x: Tensor) -> Tensor:
    return randomization_check(f, lambda m, x, t: InputXGradient(m).attribute(x, target=t), x).similarity


#: What is computed, as one tensor.
FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "linear_analysis": lambda f, x: linear_analysis(f, x).gradient,
    "Alignment": lambda f, x: Alignment(f)(x),
    "LinearizedRobustness": lambda f, x: LinearizedRobustness(f).attribute(x),
    "FullGradient": lambda f, x: FullGradient(f).attribute(x),
    "homogeneous_decomposition": _terms,
    "linearity_profile": lambda f, x: linearity_profile(f, x).margin,
    "deletion_curve": lambda f, x: deletion_curve(f, x, x.abs(), baselines=0).value,
    "randomization_check": _similarity,
    "adversarial_distance": lambda f, x: adversarial_distance(f, x).distance,
    "FoolboxPerturbation": lambda f, x: FoolboxPerturbation(f, foolbox.attacks.L2DeepFoolAttack()).perturb(x),
    "soft_labels": lambda f, x: soft_labels(f, x, temperature=2.0),
    "adversarial_examples": lambda f, x: adversarial_examples(
        f,
        x,
        torch.arange(len(x)) % 3,
        attack="pgd-l2",
        epsilon=0.1,
        steps=3,
        generator=torch.Generator().manual_seed(0),
    ),
}


@pytest.mark.parametrize("together", [*FUNCTIONS, "all"])
def test_threads_get_what_they_get_alone(together: str):
    net = _net()
    batches = [torch.rand(3, 2, 6, 6, dtype=torch.float64) for _ in range(THREADS)]
    names = list(FUNCTIONS) if together == "all" else [together]
    # Each thread has a batch of its own and starts with another function.
    jobs = [
        (name, x)
        for i, x in enumerate(batches)
        for name in (names[3 * i % len(names) :] + names[: 3 * i % len(names)]) * (1 if together == "all" else ROUNDS)
    ]
    size = len(jobs) // THREADS
    alone = [FUNCTIONS[name](net, x.clone()).detach() for name, x in jobs]
    before, state, own = snapshot(net), torch.get_rng_state(), random.getstate()
    start = threading.Barrier(THREADS)

    def run(share: int) -> list[Tensor]:
        start.wait()
        return [FUNCTIONS[name](net, x.clone()).detach() for name, x in jobs[share * size : (share + 1) * size]]

    with ThreadPoolExecutor(THREADS) as pool:
        shares = list(pool.map(run, range(THREADS)))
    for share, found in enumerate(shares):
        for a, b in zip(found, alone[share * size : (share + 1) * size], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert_unchanged(net, before)
    assert all(not module._forward_pre_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == own
    assert torch.is_grad_enabled()
