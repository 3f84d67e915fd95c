"""Every folder is used, mended and said so, or refused with the file's name and what to do."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from captum_alignment.study import report
from captum_alignment.study.evaluation import evaluate, read_records, read_run
from tests.study.evaluation.test_evaluate import PART, Images, assert_same, network


def run(out, **options):
    return evaluate(network(), Images(), out=out, part_size=PART, attacks="fast", **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(out)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run"), whole[1]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit of the first values."""
    content = bytearray(path.read_bytes())
    content[content.index(b"image-") + 6 if path.suffix == ".parquet" else 120] ^= 1
    path.write_bytes(content)


def scribble(path):
    path.write_bytes(b"once upon a time")


def empty(path):
    path.write_bytes(b"")


def swapped(path):
    """A table of something else."""
    pd.DataFrame({"a": [1]}).to_parquet(path)


def flip_in_the_footer(path):
    """One bit of what is said about a column or an array, which the checksums of Parquet and of zip leave out."""
    content = bytearray(path.read_bytes())
    content[content.rindex(b"alignment") if path.suffix == ".parquet" else 10] ^= 1
    path.write_bytes(content)


DAMAGES = (truncate, flip, flip_in_the_footer, scribble, empty)
FILES = ("parts/part-00001.parquet", "records.parquet", "gallery.npz")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_the_same_call_mends_what_is_damaged_and_says_so(folder, name, damage):
    out, expected = folder
    damage(out / name)
    with pytest.warns(UserWarning, match=rf"{name} (is|was) damaged.* made? again|{name} is damaged .* makes it again"):
        found = run(out)
    assert_same(found, expected)
    assert read_run(out).gallery["sample"].tolist() == read_run(out).gallery["sample"].tolist() != []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_report_mends_the_table_from_its_parts(folder, damage):
    out, expected = folder
    damage(out / "records.parquet")
    with pytest.warns(UserWarning, match=r"records\.parquet was damaged and is made again from its parts"):
        assert_same(read_records(out), expected)
    assert_same(read_records(out), expected)
    damage(out / "records.parquet")
    damage(out / "parts" / "part-00002.parquet")
    with pytest.raises(
        ValueError, match=r"records\.parquet is damaged, and 1 of 3 parts are missing or damaged; the command"
    ):
        read_records(out)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_report_without_its_gallery_says_so(folder, damage):
    out, _ = folder
    damage(out / "gallery.npz")
    with pytest.warns(UserWarning, match=r"gallery\.npz is damaged \(\w+\); the command that wrote it makes it again"):
        assert report([out]).is_file()


def test_a_table_of_something_else_is_measured_again_or_refused(folder):
    out, expected = folder
    swapped(out / "parts" / "part-00000.parquet")
    assert_same(run(out), expected)
    swapped(out / "records.parquet")
    with pytest.raises(ValueError, match=r"records in .* have columns of version None"):
        read_records(out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"manifest\.json that is no evaluation's"),
        (
            {"kind": "captum-alignment evaluation", "schema": 2},
            r"manifest\.json is damaged, its configuration is missing",
        ),
        ({"kind": "captum-alignment evaluation", "schema": 2, "config": []}, "its configuration is missing: use a new"),
        ({"kind": "captum-alignment evaluation", "schema": 1, "config": {}}, "was written with schema 1, expected 2"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(folder, content, message):
    out, _ = folder
    (out / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        run(out)
    with pytest.raises(ValueError, match=r"holds no evaluation|manifest\.json is damaged|schema 1"):
        read_records(out)


class Twins(Images):
    """Every image twice, so that distances are equal."""

    def __init__(self):
        super().__init__()
        self.images = self.images[torch.arange(len(self.images)) // 8]


def test_equal_images_in_a_run_that_is_continued(tmp_path):
    out = tmp_path / "run"
    evaluate(network(), Twins(), out=out, part_size=PART, batch_size=3)
    (out / "gallery.npz").unlink()
    for part in (0, 2):
        (out / "parts" / f"part-0000{part}.parquet").unlink()
    records = evaluate(network(), Twins(), out=out, part_size=PART, batch_size=2)
    shown = read_run(out).gallery
    order = records.sort_values(["distance", "sample"])["sample"].tolist()
    assert shown["sample"].tolist() == order[:6] + order[::-1][:6]
    np.testing.assert_array_equal(shown["image"], Twins().images[shown["sample"]])


def test_a_sample_that_has_gone_is_not_shown(folder):
    out, expected = folder
    (out / "gallery.npz").unlink()
    gone = expected.sort_values("distance")["sample"].iloc[0]

    class Shrunk(Images):
        name = "Images"

        def __getitem__(self, index):
            if index == gone:
                raise OSError("no such file")
            return super().__getitem__(index)

    evaluate(network(), Shrunk(), out=out, part_size=PART)
    assert gone not in read_run(out).gallery["sample"]
    assert len(read_run(out).gallery["sample"]) == 11


class Silent(Exception):
    def __str__(self):
        raise ValueError("no message")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError(), "KeyError"),
        (Silent(), "Silent"),
        (OSError("\x00\x1b[2J\n"), r"OSError: +\[2J"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_an_error_without_a_message_has_its_type(error, message):
    class Failing(Images):
        def __getitem__(self, index):
            if index % 5 == 0:
                raise error
            return super().__getitem__(index)

    assert evaluate(network(), Failing(), part_size=PART)["error"].dropna().str.fullmatch(message).all()

    def model(x):
        raise error

    with pytest.raises(ValueError, match=rf"model: raised \w+ on images of shape \(2, 6, 6\) \({message}\)"):
        evaluate(model, Images())


def test_a_model_that_exits_later_ends_in_a_sentence():
    def model(x):
        if len(x) > 1:
            sys.exit(7)
        return network()(x)

    with pytest.raises(RuntimeError, match=r"model: it, or the dataset, called exit\(7\) while it was evaluated"):
        evaluate(model, Images())


def test_a_model_without_values():
    with pytest.raises(ValueError, match="model: its parameters are on the meta device"):
        evaluate(network().to("meta"), Images())


@pytest.mark.filterwarnings("ignore:.*(nested tensors|sparse)")
def test_tensors_that_are_not_dense():
    nested = torch.nested.nested_tensor([torch.rand(2, 6, 6), torch.rand(2, 6, 7)])
    with pytest.raises(TypeError, match="dataset: got a nested or sparse tensor, expected a dense one"):
        evaluate(network(), nested)
    sparse = [torch.rand(2, 6, 6).to_sparse()] * 3
    with pytest.raises(ValueError, match="sample 0: TypeError: the image is a nested or sparse tensor"):
        evaluate(nn.Flatten(), sparse)
