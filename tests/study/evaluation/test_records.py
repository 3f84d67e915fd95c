import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from captum_alignment.study.evaluation import COLUMNS, KIND, _records, read_records, write_table
from captum_alignment.study.evaluation._records import StoredRecords, merge_parts, missing_parts, part_file, typed
from captum_alignment.study.store import open_folder


def part(samples, **columns) -> pd.DataFrame:
    n = len(samples)
    frame = {"sample": samples, "id": [f"s{i}" for i in samples], "label": [None] * n, "error": [None] * n}
    return typed(pd.DataFrame({**frame, **columns}))


@pytest.fixture
def folder(tmp_path):
    open_folder(tmp_path, KIND, {})
    return tmp_path


def test_a_table_is_read_as_it_was_written(tmp_path):
    frame = pd.DataFrame({"x": [1.0, np.inf, np.nan], "attack": ["a", None, "b"]})
    write_table(tmp_path / "t.parquet", frame, batch_size=7)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)
    assert _records.table_about(tmp_path / "t.parquet") == {"columns": _records.VERSION, "batch_size": 7}


def test_files_say_what_their_columns_mean(folder):
    write_table(part_file(folder, 0), part([0], distance=[1.0], distance_ddn=[2.0]))
    merge_parts(folder, 1)
    for path in (part_file(folder, 0), _records.records_file(folder)):
        schema = pq.read_schema(path)
        assert schema.field("distance").metadata == COLUMNS.field("distance").metadata
        assert schema.field("distance_ddn").metadata == COLUMNS.field("distance_NAME").metadata


def test_records_of_another_version_are_refused(folder, monkeypatch):
    write_table(part_file(folder, 0), part([0]))
    merge_parts(folder, 1)
    monkeypatch.setattr(_records, "VERSION", 99)
    with pytest.raises(ValueError, match=r"columns of version \d+, expected 99; .* measures them again"):
        read_records(folder)


def test_parts_are_missing_when_absent_broken_or_of_other_columns(folder, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(_records, "VERSION", 1)
        write_table(part_file(folder, 0), part([0]))
    write_table(part_file(folder, 1), part([1]))
    part_file(folder, 2).write_bytes(part_file(folder, 1).read_bytes()[:-20])
    pd.DataFrame({"x": [1]}).to_parquet(part_file(folder, 3))
    assert missing_parts(folder, 5) == [0, 2, 3, 4]


def test_merged_parts_are_one_table_also_where_all_of_one_failed(folder):
    good = {"distance": [1.0, np.inf], "prediction": [3, 1], "attack": ["ddn", None], "label": [3, None]}
    write_table(part_file(folder, 0), part([4, 5], error=["no image", "no image"]))
    write_table(part_file(folder, 1), part([3, 1], **good))
    merge_parts(folder, 2)
    found = read_records(folder)
    assert found["sample"].tolist() == [1, 3, 4, 5]
    assert found["distance"].tolist()[:2] == [np.inf, 1.0]
    assert found["distance"].isna().tolist() == [False, False, True, True]
    assert found["prediction"].tolist()[:2] == [1, 3]
    assert found["label"].isna().tolist() == [True, False, True, True]
    assert found["error"].tolist()[2:] == ["no image"] * 2
    pd.testing.assert_frame_equal(found, typed(found))


def test_stored_columns_are_those_of_the_table_however_the_parts_are_grouped(folder, monkeypatch):
    for number in range(5):
        write_table(part_file(folder, number), part([10 - number, 20 - number], distance=[number, np.nan]))
    merge_parts(folder, 5)
    table = read_records(folder)
    monkeypatch.setattr(_records, "_GROUP", 2)
    merge_parts(folder, 5)
    stored = StoredRecords(folder)
    assert len(stored) == len(table) == 10
    assert list(stored) == list(table)
    assert "distance" in stored
    assert "nothing" not in stored
    monkeypatch.setattr(_records, "_AT_ONCE", 0)
    for name in table:
        pd.testing.assert_series_equal(stored[name], table[name])
        pd.testing.assert_series_equal(StoredRecords(folder)[name], table[name])
    assert table["sample"].tolist() == [*range(6, 11), *range(16, 21)]


def test_an_unfinished_evaluation_is_not_read(folder, tmp_path):
    write_table(part_file(folder, 0), part([0]))
    with pytest.raises(ValueError, match=r"not finished \(1 parts are\)"):
        read_records(folder)
    with pytest.raises(ValueError, match="holds no evaluation"):
        read_records(tmp_path / "nowhere")
