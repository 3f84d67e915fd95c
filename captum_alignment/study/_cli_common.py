"""What the commands share: options, and the threads and the device that they run on."""

import argparse
from typing import Any, TypeAlias

#: What `argparse.ArgumentParser.add_subparsers` returns.
Commands: TypeAlias = Any

THREADS: dict[str, Any] = {
    "type": int,
    "default": 1,
    "metavar": "N",
    "help": "CPU threads (default: 1; small networks gain little from more, and lose much where cores are shared)",
}


def size(text: str) -> int | None:
    """A number of samples, or None for "all"."""
    return None if text == "all" else int(text)


def prepare(arguments: argparse.Namespace) -> str:
    """Set the number of threads; the device that was asked for, else this process's GPU where there is one."""
    if arguments.threads < 1:
        raise ValueError(f"threads: got {arguments.threads}, expected at least 1")

    import torch  # noqa: PLC0415 - only now that the arguments are known to be right

    from captum_alignment.study._distributed import local_rank  # noqa: PLC0415

    torch.set_num_threads(arguments.threads)
    if "device" in arguments:
        return arguments.device
    return f"cuda:{local_rank() % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
