import json

import pytest

from captum_alignment.study.cohort import make_config
from captum_alignment.study.store import _folder, open_folder, read_manifest
from captum_alignment.study.store._folder import difference

CONFIG = {"epochs": 30, "rates": [0.0, 1.5], "size": None}


def test_a_folder_is_made_and_continued(tmp_path):
    out = tmp_path / "a" / "b"
    open_folder(out, "study", CONFIG)
    assert read_manifest(out, "study")["config"] == CONFIG
    leftover = out / "models" / ".x.pt.1.unfinished"
    leftover.parent.mkdir()
    leftover.touch()
    open_folder(out, "study", CONFIG)
    assert not leftover.exists()


def test_an_empty_folder_is_taken(tmp_path):
    open_folder(tmp_path, "study", CONFIG)
    assert (tmp_path / "manifest.json").is_file()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "manifest.json"])
@pytest.mark.parametrize("content", ["mine", "[]", '{"kind": "other"}'])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"--out: .* expected a new or empty folder"):
        open_folder(tmp_path, "study", CONFIG)
    assert [item.read_text() for item in tmp_path.iterdir()] == [content]


def test_a_study_is_no_evaluation(tmp_path):
    open_folder(tmp_path, "study", CONFIG)
    with pytest.raises(ValueError, match="is no evaluation's"):
        open_folder(tmp_path, "evaluation", CONFIG)
    with pytest.raises(ValueError, match=r"RUN: .* holds no evaluation"):
        read_manifest(tmp_path, "evaluation", option="RUN")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        open_folder(tmp_path / "file", "study", CONFIG)


def test_another_configuration_is_refused_with_the_difference_once_something_is_there(tmp_path):
    open_folder(tmp_path, "study", CONFIG)
    open_folder(tmp_path, "study", {**CONFIG, "epochs": 9})  # nothing was lost
    (tmp_path / "result").touch()
    with pytest.raises(ValueError, match=r"a study of another configuration \(epochs: 9 there, 30 here"):
        open_folder(tmp_path, "study", CONFIG)


def test_another_schema_is_refused(tmp_path, monkeypatch):
    open_folder(tmp_path, "study", CONFIG)
    monkeypatch.setitem(_folder.SCHEMAS, "study", 99)
    with pytest.raises(ValueError, match="expected 99"):
        open_folder(tmp_path, "study", CONFIG)


def test_the_manifest_is_json_that_others_can_read(tmp_path):
    open_folder(tmp_path, "study", make_config(strengths=(0.0, 0.01)).as_dict())
    content = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert content["config"]["strengths"][1] == 0.01
    assert "torch" in content["versions"]


def test_difference_names_what_changed():
    old, new = make_config(epochs=30, strengths=(0.0, 0.01)), make_config(epochs=9, strengths=(0.0, 0.5))
    assert difference(old.as_dict(), old.as_dict()) == []
    assert difference(old.as_dict(), new.as_dict()) == [
        "epochs: 30 there, 9 here",
        "strengths: 0 0.01 there, 0 0.5 here",
    ]
    assert difference({}, {"new": 1}) == ["new: absent there, 1 here"]
