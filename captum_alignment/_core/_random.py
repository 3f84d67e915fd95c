"""Chance that depends on a seed alone and leaves the global generators where they were."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: The generators are global to the process: two threads inside at once would put back each other's states.
_ALONE = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global generators of the CPU and of ``device`` start from ``seed``; one thread at a time."""
    with _ALONE, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def private_generator(device: torch.device) -> torch.Generator:
    """A generator that starts from 0: of ``device``, or of the CPU where the device has none of its own."""
    try:
        return torch.Generator(device).manual_seed(0)
    except RuntimeError:
        return torch.Generator().manual_seed(0)


def check_generator(generator: torch.Generator | None) -> None:
    """A `TypeError` unless ``generator`` is one or None."""
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"generator: got {type(generator).__name__}, expected a torch.Generator, such as "
            "torch.Generator().manual_seed(0), or None"
        )


def as_generator(generator: torch.Generator | None) -> torch.Generator:
    """``generator``, for None one on the CPU that starts from 0; errors as `check_generator`."""
    check_generator(generator)
    return torch.Generator().manual_seed(0) if generator is None else generator


def draw_seeds(generator: torch.Generator | None, count: int) -> list[int]:
    """``count`` seeds from ``generator``; None is a fixed private one."""
    generator = as_generator(generator)
    return torch.randint(2**62, (count,), generator=generator, device=generator.device).tolist()
