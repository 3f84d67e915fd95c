"""The records of an evaluation: one row per sample, in numbered parts, then in one table; `COLUMNS` are its columns."""

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from captum_alignment.study.evaluation._columns import COLUMNS, VERSION, column, place
from captum_alignment.study.evaluation._run import Run
from captum_alignment.study.evaluation._sealed import is_intact, sealed_writer
from captum_alignment.study.store import read_arrays, read_manifest

KIND = "evaluation"
_META = b"captum_alignment"
#: So many parts make a row group of the table: what a file says about its groups is read whole, whatever is wanted.
_GROUP = 100
#: Values of a table that is read at once; of a larger one, one column at a time.
_AT_ONCE = 2**20
#: What pandas calls the types of the columns, each of which has missing values.
_DTYPES = {"int64": "Int64", "large_string": "string", "double": "float64"}


def part_file(folder: Path, part: int) -> Path:
    return folder / "parts" / f"part-{part:05d}.parquet"


def records_file(folder: Path) -> Path:
    return folder / "records.parquet"


def gallery_file(folder: Path) -> Path:
    """Where the evaluation in ``folder`` keeps the maps of the samples that are shown."""
    return folder / "gallery.npz"


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the dtypes and in the order of `COLUMNS`, so that a part without any measured sample agrees with
    the others.

    Whole numbers are Int64 and texts are strings, both missing where there is nothing; the rest are floats, NaN where
    there is nothing.
    """
    places = {str(name): place(str(name)) for name in frame}
    dtypes = {name: _DTYPES[str(COLUMNS.field(at).type)] for name, at in places.items()}
    # Only those that differ: to look at each of many columns takes pandas longer than to measure a batch.
    wrong = {name: dtype for name, dtype in dtypes.items() if frame[name].dtype != dtype}
    ordered_names = sorted(places, key=places.__getitem__)
    return frame.assign(**{name: frame[name].astype(dtype) for name, dtype in wrong.items()}).loc[:, ordered_names]


def write_table(path: Path, frame: pd.DataFrame, **about: Any) -> None:
    """``frame`` as parquet; the meaning and unit of its columns, their version and ``about`` go into its metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _META: json.dumps({"columns": VERSION, **about}).encode()}
    schema = pa.schema([column(field.name) or field for field in table.schema], metadata)
    with sealed_writer(path, schema) as writer:
        writer.write_table(table.cast(schema))


def table_about(path: Path) -> dict[str, Any]:
    """What `write_table` was told, and the version of the columns; nothing where ``path`` is no such table."""
    try:
        return json.loads((pq.read_schema(path).metadata or {})[_META])
    except Exception:  # Arrow has many ways to say that a file is damaged
        return {}


def missing_parts(folder: Path, count: int) -> list[int]:
    """Which of ``count`` parts are not there, not with these columns, or damaged."""
    return [part for part in range(count) if not _is_current(part_file(folder, part))]


def _is_current(path: Path) -> bool:
    return table_about(path).get("columns") == VERSION and is_whole(path)


def is_whole(path: Path) -> bool:
    """Whether a table is what was written; one of earlier columns, which had no checksum, whether it is a table."""
    try:
        intact = is_intact(path)
        if intact is None:
            pq.read_schema(path)
    except Exception:  # Arrow has many ways to say that a file is damaged
        return False
    return table_about(path).get("columns") != VERSION if intact is None else intact


def merge_parts(folder: Path, count: int) -> None:
    """One table of all parts, in their order, holding few of them in memory."""
    parts = [part_file(folder, part) for part in range(count)]
    # A part whose samples all failed lacks the measured columns.
    schema = max(map(pq.read_schema, parts), key=len)
    for part in parts:
        schema = pa.unify_schemas([schema, pq.read_schema(part)])
    with sealed_writer(records_file(folder), schema) as writer:
        for start in range(0, count, _GROUP):
            group = [ds.dataset(part, schema=schema).to_table() for part in parts[start : start + _GROUP]]
            writer.write_table(pa.concat_tables(group))


def read_records(folder: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The records of the finished evaluation in ``folder``, one row per sample, ordered by ``sample``.

    Args:
        columns: only these, as far as they are there; None is all.

    Raises:
        ValueError: there is no evaluation, or it is not finished.
    """
    stored = StoredRecords(folder)
    chosen = list(stored) if columns is None else [name for name in columns if name in stored]
    return pd.DataFrame({name: stored[name] for name in chosen}, copy=False)


class StoredRecords:
    """The records of a finished evaluation, column by column, ordered by ``sample``; errors as `read_records`.

    Of a large table nothing but the order stays in memory, so that a report of any number of samples fits.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        read_manifest(folder, KIND, option="folder")
        self._path = records_file(folder)
        if not self._path.is_file():
            done = len(list((folder / "parts").glob("part-*.parquet")))
            raise ValueError(f"folder: {folder} is not finished ({done} parts are); the same command continues it")
        if not is_whole(self._path):
            rebuild(folder)
        version = table_about(self._path).get("columns")
        if version != VERSION:
            raise ValueError(
                f"folder: the records in {folder} have columns of version {version}, expected {VERSION}; the command "
                "that wrote them measures them again"
            )
        self._names = pq.read_schema(self._path).names
        self._order = np.argsort(pq.read_table(self._path, columns=["sample"])["sample"].to_numpy(), kind="stable")
        small = len(self._order) * len(self._names) <= _AT_ONCE
        self._whole = self._read(self._names) if small else None

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> pd.Series:
        return (self._read([name]) if self._whole is None else self._whole)[name]

    def _read(self, names: list[str]) -> pd.DataFrame:
        return pq.read_table(self._path, columns=names).to_pandas().take(self._order).reset_index(drop=True)


def rebuild(folder: Path) -> None:
    """Make the damaged table of a finished evaluation again from its parts, and say so.

    Raises:
        ValueError: parts are missing or damaged, too.
    """
    config = read_manifest(folder, KIND, option="folder")["config"]
    count = -(-config["size"] // config["part size"])
    if missing := missing_parts(folder, count):
        raise ValueError(
            f"folder: {records_file(folder)} is damaged, and {len(missing)} of {count} parts are missing or damaged; "
            "the command that wrote them measures those again"
        )
    merge_parts(folder, count)
    warnings.warn(f"folder: {records_file(folder)} was damaged and is made again from its parts", stacklevel=2)


def whole_gallery(folder: Path) -> dict[str, np.ndarray]:
    """The maps of the samples that are shown; none where the file is not there or damaged, which a warning says."""
    path = gallery_file(folder)
    if not path.is_file():
        return {}
    try:
        if is_intact(path) is False:  # None of earlier runs, which have no checksum
            raise ValueError("other bytes than were written")
        return read_arrays(path)
    except Exception as error:  # zip, zlib and numpy have their own ways to say that a file is damaged
        warnings.warn(
            f"folder: {path} is damaged ({type(error).__name__}); the command that wrote it makes it again",
            stacklevel=2,
        )
        return {}


def ordered(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All rows of ``frames``, by sample."""
    return pd.concat(frames, ignore_index=True).sort_values("sample", ignore_index=True)


def read_run(folder: str | Path) -> Run:
    """A finished evaluation as the report takes it; errors as `read_records`."""
    folder = Path(folder)
    records = StoredRecords(folder)
    return Run(folder.resolve().name, read_manifest(folder, KIND, option="folder"), records, whole_gallery(folder))
