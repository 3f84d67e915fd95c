"""The folder of a study: who it belongs to, and files that are either whole or absent."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from captum_alignment.study._config import StudyConfig, difference

#: Version of the layout of the folder; a folder of another one is refused.
SCHEMA = 1
#: Version of the columns of the records; evaluations of another one are repeated, with the models that are there.
COLUMNS = 2
_KIND = "captum-alignment study"
_TEMPORARY = ".unfinished"
_META = b"captum_alignment"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which becomes ``path`` when the block ends well and disappears otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_TEMPORARY}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_folder(path: Path, config: StudyConfig) -> None:
    """Make ``path`` the folder of the study ``config``, or continue the one that it holds.

    Raises:
        ValueError: it holds something else, or a study of another configuration; the message shows the difference.
    """
    manifest = path / "config.json"
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out: {path} is a file, expected a folder")
    if manifest.is_file():
        _check_manifest(path, manifest, config)
    elif path.is_dir() and any(not _is_leftover(item) for item in path.iterdir()):
        raise ValueError(f"--out: {path} is not empty and holds no study, expected a new or empty folder")
    path.mkdir(parents=True, exist_ok=True)
    for leftover in filter(_is_leftover, path.rglob("*")):
        leftover.unlink()  # of a run that was killed
    if not manifest.is_file():
        content = {"kind": _KIND, "schema": SCHEMA, "config": config.as_dict(), "versions": versions()}
        write_text(manifest, json.dumps(content, indent=2) + "\n")


def _check_manifest(path: Path, manifest: Path, config: StudyConfig) -> None:
    try:
        content = json.loads(manifest.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ValueError(f"--out: {path} holds a config.json that is no study's, expected a new or empty folder")
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"--out: {path} was written with schema {content.get('schema')}, expected {SCHEMA}: use a new folder"
        )
    changed = difference(content.get("config", {}), config.as_dict())
    if changed:
        raise ValueError(
            f"--out: {path} holds a study of another configuration ({'; '.join(changed)}); "
            "use a new folder, or the same options to continue"
        )


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    found = {}
    for name in ("captum-alignment", "torch", "captum", "foolbox", "lightning"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "not installed"
    return found


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def read_weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] - its stub takes allow_pickle for one


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def write_table(path: Path, frame: pd.DataFrame, **about: Any) -> None:
    """``frame`` as parquet; ``about`` and the version of the columns go into its metadata, `table_about` reads them."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _META: json.dumps({"columns": COLUMNS, **about}).encode()}
    with whole_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def table_about(path: Path) -> dict[str, Any]:
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_META, b"{}"))
