"""Files with a checksum of every byte: those of parquet leave out the footer, where names and types are.

In a table the checksum is part of the metadata, in an archive of arrays it is the comment.
"""

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captum_alignment.study.store import whole_file

#: The key in the metadata of a table, and what stands before its digits, by which they are found in the file.
_KEY, _MARK = b"checksum", b"captum-alignment sha256 "
_BLANK = b"0" * 64


@contextmanager
def sealed_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes the table ``path``, which is whole or absent."""
    schema = schema.with_metadata({**(schema.metadata or {}), _KEY: _MARK + _BLANK})
    with whole_file(path) as temporary:
        with pq.ParquetWriter(temporary, schema) as writer:
            yield writer
        _put_checksum(temporary)


def write_sealed_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Named arrays as npz, which is whole or absent."""
    with whole_file(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] - its stub takes allow_pickle for one
        with ZipFile(temporary, "a") as archive:
            archive.comment = _MARK + _BLANK
        _put_checksum(temporary)


def is_intact(path: Path) -> bool | None:
    """Whether every byte is as it was written; None without a checksum."""
    found = _seal(path)
    return None if found is None else found[1] == found[2]


def _put_checksum(path: Path) -> None:
    """Replace the blank digits, with which the checksum is taken."""
    found = _seal(path)
    assert found is not None
    with path.open("r+b") as file:
        file.seek(found[0])
        file.write(found[2])


def _seal(path: Path) -> tuple[int, bytes, bytes] | None:
    """Where the digits of the checksum are, which they are, and which they should be."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        mark = content.rfind(_MARK)
        if mark < 0:
            return None
        place = mark + len(_MARK)
        with memoryview(content) as view:
            digest = hashlib.sha256(view[:place])
            digest.update(_BLANK)
            digest.update(view[place + len(_BLANK) :])
        return place, content[place : place + len(_BLANK)], digest.hexdigest().encode()
