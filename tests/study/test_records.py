import json

import numpy as np
import pandas as pd
import pytest
import torch

from captum_alignment.study import _records
from captum_alignment.study._config import make_config


def write_half(path, error):
    with _records.whole_file(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt)
    assert list(path.parent.iterdir()) == []
    _records.write_text(path, "first")
    with pytest.raises(RuntimeError):
        write_half(path, RuntimeError)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_made_and_continued(tmp_path):
    out, config = tmp_path / "a" / "b", make_config()
    _records.open_folder(out, config)
    content = json.loads((out / "config.json").read_text())
    assert content["config"] == config.as_dict()
    leftover = out / "models" / ".x.pt.unfinished"
    leftover.parent.mkdir()
    leftover.touch()
    _records.open_folder(out, config)
    assert not leftover.exists()


def test_an_empty_folder_is_taken(tmp_path):
    _records.open_folder(tmp_path, make_config())
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "config.json"])
@pytest.mark.parametrize("content", ["mine", "[]", '{"kind": "other"}'])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"--out: .* expected a new or empty folder"):
        _records.open_folder(tmp_path, make_config())
    assert [item.read_text() for item in tmp_path.iterdir()] == [content]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        _records.open_folder(tmp_path / "file", make_config())


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    _records.open_folder(tmp_path, make_config())
    with pytest.raises(ValueError, match="epochs: 30 there, 9 here"):
        _records.open_folder(tmp_path, make_config(epochs=9))


def test_another_schema_is_refused(tmp_path, monkeypatch):
    _records.open_folder(tmp_path, make_config())
    monkeypatch.setattr(_records, "SCHEMA", 2)
    with pytest.raises(ValueError, match="schema 1, expected 2"):
        _records.open_folder(tmp_path, make_config())


def test_what_is_written_is_read(tmp_path):
    frame = pd.DataFrame({"x": [1.0, np.inf, np.nan], "attack": ["a", None, "b"]})
    _records.write_table(tmp_path / "t.parquet", frame, weights="abc")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)
    assert _records.table_about(tmp_path / "t.parquet") == {"columns": _records.COLUMNS, "weights": "abc"}

    arrays = {"a": np.arange(3), "b": np.ones((2, 2))}
    _records.write_arrays(tmp_path / "a.npz", arrays)
    found = _records.read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["b"], arrays["b"])

    _records.write_weights(tmp_path / "w.pt", {"w": torch.ones(2)})
    assert torch.equal(_records.read_weights(tmp_path / "w.pt")["w"], torch.ones(2))


def test_weights_are_no_pickle(tmp_path):
    torch.save({"w": make_config()}, tmp_path / "w.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        _records.read_weights(tmp_path / "w.pt")
