"""Files that are either whole or absent, and what the numbers in them depend on."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TEMPORARY = ".unfinished"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which becomes ``path`` when the block ends well and disappears otherwise.

    Several processes may write the same file at once: one of them wins, and the file is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk names no file by itself
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether ``path`` is the temporary file of a process that was killed."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


def remove_leftovers(folder: Path) -> None:
    for leftover in filter(is_leftover, folder.rglob("*")):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """``text`` as UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """``content`` as JSON that a reader can read."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    """A state_dict as of `torch.save`."""
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def read_weights(path: Path) -> dict[str, Tensor]:
    """What `write_weights` wrote, on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz by their names."""
    # numpy leaves a file that it opens itself open where it is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def state_hash(state: dict[str, Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of a state_dict; the device does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not isinstance(tensor, Tensor):  # a quantised layer's packed parameters
            digest.update(f"{name} {tensor!r}".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because numpy knows no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    found = {}
    for name in ("captum-alignment", "torch", "torchvision", "captum", "foolbox", "lightning"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "not installed"
    return found
