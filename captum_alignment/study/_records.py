"""The records of an evaluation: one row per sample, in numbered parts, then in one table.

``docs/evaluate.md`` says what every column means.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from captum_alignment.study._files import read_arrays, whole_file
from captum_alignment.study._folder import read_manifest
from captum_alignment.study._run import Run

KIND = "evaluation"
#: Version of the columns; parts of another one are measured again.
COLUMNS = 3
_META = b"captum_alignment"
_INTEGERS: tuple[str, ...] = ("sample", "label", "prediction", "rival", "model_passes")
_TEXTS: tuple[str, ...] = ("id", "attack", "error")


def part_file(folder: Path, part: int) -> Path:
    return folder / "parts" / f"part-{part:05d}.parquet"


def records_file(folder: Path) -> Path:
    return folder / "records.parquet"


def gallery_file(folder: Path) -> Path:
    return folder / "gallery.npz"


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the dtypes of records, in which a part without any measured sample agrees with the others.

    Whole numbers are Int64 and texts are strings, both missing where there is nothing; the rest are floats, NaN where
    there is nothing.
    """
    kinds = {**dict.fromkeys(_INTEGERS, "Int64"), **dict.fromkeys(_TEXTS, "string")}
    return frame.astype({str(name): kinds.get(str(name), "float64") for name in frame})


def write_table(path: Path, frame: pd.DataFrame, **about: Any) -> None:
    """``frame`` as parquet; ``about`` and the version of the columns go into its metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _META: json.dumps({"columns": COLUMNS, **about}).encode()}
    with whole_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def table_about(path: Path) -> dict[str, Any]:
    """What `write_table` was told, and the version of the columns; nothing where ``path`` is no such table."""
    try:
        return json.loads((pq.read_schema(path).metadata or {})[_META])
    except (OSError, pa.ArrowInvalid, KeyError, json.JSONDecodeError):
        return {}


def missing_parts(folder: Path, count: int) -> list[int]:
    """Which of ``count`` parts are not there, or not with these columns."""
    return [part for part in range(count) if table_about(part_file(folder, part)).get("columns") != COLUMNS]


def merge_parts(folder: Path, count: int) -> None:
    """One table of all parts, in their order, holding no more than one part in memory."""
    parts = [part_file(folder, part) for part in range(count)]
    # A part whose samples all failed lacks the measured columns.
    schemas = sorted(map(pq.read_schema, parts), key=len, reverse=True)
    schema = pa.unify_schemas(schemas)
    with whole_file(records_file(folder)) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in parts:
            writer.write_table(ds.dataset(part, schema=schema).to_table())


def read_records(folder: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The records of the finished evaluation in ``folder``, one row per sample, ordered by ``sample``.

    Args:
        columns: only these, as far as they are there; None is all.

    Raises:
        ValueError: there is no evaluation, or it is not finished.
    """
    folder = Path(folder)
    read_manifest(folder, KIND, option="folder")
    if not records_file(folder).is_file():
        done = len(list((folder / "parts").glob("part-*.parquet")))
        raise ValueError(f"folder: {folder} is not finished ({done} parts are); the same command continues it")
    table = pq.read_table(records_file(folder))
    if columns is not None:
        table = table.select([name for name in columns if name in table.column_names])
    return table.sort_by("sample").to_pandas(split_blocks=True, self_destruct=True)


def ordered(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All rows of ``frames``, by sample."""
    return pd.concat(frames, ignore_index=True).sort_values("sample", ignore_index=True)


def read_run(folder: str | Path, records: pd.DataFrame | None = None) -> Run:
    """A finished evaluation as the report takes it; errors as `read_records`, unless the ``records`` are at hand."""
    folder = Path(folder)
    records = read_records(folder) if records is None else records
    gallery: dict[str, np.ndarray] = read_arrays(gallery_file(folder)) if gallery_file(folder).is_file() else {}
    return Run(folder.resolve().name, read_manifest(folder, KIND, option="folder"), records, gallery)
