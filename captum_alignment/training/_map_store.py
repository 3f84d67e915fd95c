"""One map per sample on disk: a numpy memory map that grows batch by batch, and a manifest of how far it has come."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

_KIND = "captum-alignment maps"


class MapStore:
    """A folder with ``maps.npy`` (N, ...) and ``manifest.json``; until all maps are there, the file has another name.

    Args:
        folder: where it lies.

    Raises:
        FileNotFoundError: there is no finished store.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = _read(self.folder)
        if self.manifest is None or not _maps(self.folder).is_file():
            raise FileNotFoundError(f"folder: {self.folder} holds no finished maps; make them with saliency_targets")
        self._array: Any = None

    def __len__(self) -> int:
        return self.manifest["options"]["samples_in_all"]  # pyright: ignore[reportOptionalSubscript]

    def __getitem__(self, index: int) -> np.ndarray:
        if self._array is None:
            self._array = np.load(_maps(self.folder), mmap_mode="r")
        return np.array(self._array[index])

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled with all of its content; every process opens its own.
        return {**self.__dict__, "_array": None}


class MapWriter:
    """Writes a `MapStore`, or goes on where an interrupted run has stopped.

    Args:
        folder: new, empty, or with the store that the same options began.
        options: what the maps depend on, fit for JSON; with ``samples_in_all``, how many maps there will be.

    Attributes:
        done: how many maps are there already.

    Raises:
        ValueError: the folder holds maps of other options, or something else.
    """

    def __init__(self, folder: Path | str, options: dict[str, Any]) -> None:
        self.folder, self.options = Path(folder), json.loads(json.dumps(options))
        self.folder.mkdir(parents=True, exist_ok=True)
        found = _read(self.folder)
        if found is None and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise ValueError(f"folder: {self.folder} is not empty and holds no maps, expected a new or empty folder")
        if found is not None and found["options"] != self.options:
            old = found["options"]
            changed = [k for k in {**old, **self.options} if old.get(k) != self.options.get(k)]
            difference = ", ".join(f"{k}: {old.get(k)!r} there, {self.options.get(k)!r} here" for k in sorted(changed))
            raise ValueError(
                f"folder: {self.folder} holds maps of other options ({difference}); expected another folder"
            )
        self.done: int = 0 if found is None else found["done"]
        self._array: Any = None
        if self.finished and not _maps(self.folder).is_file():  # interrupted between the last batch and the renaming
            os.replace(_partial(self.folder), _maps(self.folder))

    @property
    def finished(self) -> bool:
        return self.done == self.options["samples_in_all"]

    def append(self, maps: np.ndarray) -> None:
        """The next maps (n, ...). They are on disk before the manifest counts them."""
        if self._array is None:
            self._array = self._open(maps)
        self._array[self.done : self.done + len(maps)] = maps
        self._array.flush()
        self.done += len(maps)
        _write(self.folder, {"kind": _KIND, "done": self.done, "options": self.options})
        if self.finished:
            self._array = None
            os.replace(_partial(self.folder), _maps(self.folder))

    def _open(self, maps: np.ndarray) -> Any:
        shape = (self.options["samples_in_all"], *maps.shape[1:])
        if self.done == 0:
            return np.lib.format.open_memmap(_partial(self.folder), mode="w+", dtype=maps.dtype, shape=shape)
        array = np.load(_partial(self.folder), mmap_mode="r+")
        if array.shape != shape or array.dtype != maps.dtype:
            raise ValueError(
                f"dataset: got maps {maps.dtype} of shape {maps.shape[1:]}, but {self.folder} holds {array.dtype} of "
                f"shape {array.shape[1:]}; expected the dataset that the store was begun with"
            )
        return array


def _maps(folder: Path) -> Path:
    return folder / "maps.npy"


def _partial(folder: Path) -> Path:
    return folder / ".maps.unfinished.npy"


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ValueError(f"folder: {path} is not a manifest of maps, expected a new or empty folder")
    return content


def _write(folder: Path, content: dict[str, Any]) -> None:
    temporary = folder / ".manifest.unfinished.json"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, folder / "manifest.json")
