"""Chance that depends on a seed alone and leaves the global generators where they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global generators of the CPU and of ``device`` start from ``seed``."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def draw_seeds(generator: torch.Generator | None, count: int) -> list[int]:
    """``count`` seeds from ``generator``; None is a fixed private one."""
    generator = generator or torch.Generator().manual_seed(0)
    return torch.randint(2**62, (count,), generator=generator, device=generator.device).tolist()
