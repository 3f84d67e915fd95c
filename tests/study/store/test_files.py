import errno

import numpy as np
import pytest
import torch

from captum_alignment.study.cohort import make_config
from captum_alignment.study.store import _files


def write_half(path, error):
    with _files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt)
    assert list(path.parent.iterdir()) == []
    _files.write_text(path, "first")
    with pytest.raises(RuntimeError):
        write_half(path, RuntimeError)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*file.txt'"):
        write_half(tmp_path / "file.txt", OSError(errno.ENOSPC, "No space left on device"))


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / "a.pt", tmp_path / "deep" / "b.unfinished"]
    leftover = tmp_path / "deep" / ".c.pt.123.unfinished"
    leftover.parent.mkdir()
    for path in (*kept, leftover):
        path.touch()
    _files.remove_leftovers(tmp_path)
    assert all(path.exists() for path in kept)
    assert not leftover.exists()


def test_what_is_written_is_read(tmp_path):
    arrays = {"a": np.arange(3), "b": np.ones((2, 2))}
    np.savez(tmp_path / "a.npz", a=arrays["a"], b=arrays["b"])
    found = _files.read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["b"], arrays["b"])

    _files.write_weights(tmp_path / "w.pt", {"w": torch.ones(2)})
    assert torch.equal(_files.read_weights(tmp_path / "w.pt")["w"], torch.ones(2))


def test_weights_are_no_pickle(tmp_path):
    torch.save({"w": make_config()}, tmp_path / "w.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        _files.read_weights(tmp_path / "w.pt")


def test_the_hash_of_a_state_sees_names_values_shapes_and_dtypes():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.zeros(0)}
    same = {"c": torch.zeros(0), "b": torch.tensor(3), "a": torch.arange(6.0).reshape(3, 2).reshape(2, 3)}
    others = [
        {**state, "a": state["a"].reshape(3, 2)},
        {**state, "a": state["a"].double()},
        {**state, "a": state["a"].bfloat16()},
        {**state, "a": state["a"] + 1e-6},
        {"x" if name == "a" else name: tensor for name, tensor in state.items()},
    ]
    hashes = [_files.state_hash(other) for other in (state, *others)]
    assert _files.state_hash(same) == hashes[0]
    assert len(set(hashes)) == len(hashes)
