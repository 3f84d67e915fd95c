import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captum_alignment.study.evaluation._sealed import is_intact, sealed_writer, write_sealed_arrays
from captum_alignment.study.store import read_arrays

TABLE = pa.table({"x": np.arange(5.0), "text": ["captum-alignment sha256 of a user"] * 5})


@pytest.fixture
def path(tmp_path):
    with sealed_writer(tmp_path / "t.parquet", TABLE.schema) as writer:
        writer.write_table(TABLE)
    return tmp_path / "t.parquet"


@pytest.fixture
def archive(tmp_path):
    write_sealed_arrays(
        tmp_path / "a.npz", {"x": np.arange(5.0), "text": np.array(["captum-alignment sha256 of a user"])}
    )
    return tmp_path / "a.npz"


def test_any_reader_reads_it(path, archive):
    assert is_intact(path)
    assert pq.read_table(path).equals(TABLE)
    assert is_intact(archive)
    np.testing.assert_array_equal(read_arrays(archive)["x"], np.arange(5.0))
    assert list(read_arrays(archive)) == ["x", "text"]


@pytest.mark.parametrize("kind", ["path", "archive"])
def test_every_flipped_bit_is_found(kind, request):
    path = request.getfixturevalue(kind)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        assert not is_intact(path)  # None where the mark itself is hit
    path.write_bytes(content[:-1])
    assert not is_intact(path)


def test_a_table_without_a_checksum_and_no_table_have_none(tmp_path):
    pq.write_table(TABLE.select(["x"]), tmp_path / "plain.parquet")
    assert is_intact(tmp_path / "plain.parquet") is None
    (tmp_path / "empty").touch()
    assert is_intact(tmp_path / "empty") is None


def test_a_table_that_is_not_finished_is_not_there(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"), sealed_writer(tmp_path / "t.parquet", TABLE.schema):
        raise RuntimeError("stopped")
    assert list(tmp_path.iterdir()) == []
