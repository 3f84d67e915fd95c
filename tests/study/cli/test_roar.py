import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from captum_alignment.study.cli import main
from captum_alignment.study.roar import PRESETS

TINY = ["--train-size", "120", "--test-size", "60", "--epochs", "1", "--seeds", "1", "--fractions", "0.5"]
TINY += ["--methods", "random", "sobel"]
FACTORY = """
import torch
from torch import nn

def make(width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def trained():
    torch.manual_seed(0)
    return make()
"""


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(FACTORY)
    return path


def config(out) -> dict:
    return json.loads((out / "manifest.json").read_text())["config"]


def test_without_a_model_one_is_trained_explained_and_kept(tmp_path, capsys):
    out = tmp_path / "roar"
    assert main(["roar", "--out", str(out), *TINY]) == 0
    assert "beyond random" in capsys.readouterr().out
    assert len(pd.read_csv(out / "cells.csv")) == 3
    assert config(out)["model"] == "small, trained as the others"
    before = {path: path.stat().st_mtime_ns for path in (out / "model.pt", *out.glob("cells/*"))}
    assert main(["roar", "--out", str(out), *TINY]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(["roar", "--out", str(out), *TINY, "--per", "value"]) == 2
    assert "per: pixel there, value here" in capsys.readouterr().err


def test_a_users_model_is_explained_and_retrained_from_scratch(factory, tmp_path, capsys):
    out = tmp_path / "mine"
    options = ["--mean", "0.5", "--std", "0.25", "--modes", "kar", "--absolute"]
    assert main(["roar", "--out", str(out), "--model", f"{factory}:make(width=4)", *TINY, *options]) == 0
    found = config(out)
    assert found["model"] == found["retrained"] == "nets.py:make(width=4)"
    assert found["absolute"]
    assert main(["roar", "--out", str(tmp_path / "same"), "--model", f"{factory}:trained", *TINY]) == 2
    assert "make_model: returned the same weights twice" in capsys.readouterr().err
    retrain = ["--retrain", f"{factory}:make"]
    assert main(["roar", "--out", str(tmp_path / "same"), "--model", f"{factory}:trained", *TINY, *retrain]) == 0


def test_the_preset_runs_on_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    data = ["--data", f"imagefolder:{tmp_path / 'test'}", "--train-data", f"imagefolder:{tmp_path / 'train'}"]
    small = ["--epochs", "1", "--seeds", "1", "--fractions", "0.4", "--methods", "saliency"]
    assert main(["roar", "--out", str(tmp_path / "out"), "--preset", "zeng-cifar10", *data, *small]) == 0
    found, preset = config(tmp_path / "out"), PRESETS["zeng-cifar10"]
    names = ("optimizer", "learning_rate", "batch_size", "decay_every", "weight_decay", "augment")
    assert {name: found[name] for name in names} == {name: preset[name] for name in names}
    assert found["model"] == "resnet18, trained as the others"
    assert found["shape"] == [3, 32, 32]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "salience"], "did you mean saliency?"),
        (["--fractions", "1.5"], "fractions: got 1.5"),
        (["--preset", "zeng"], "--preset: got 'zeng', expected 'zeng-cifar10'"),
        (["--network", "vgg"], "--network: got 'vgg', expected 'small' or 'resnet18'"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--weights", "w.pt"], "--weights: got it without --model"),
        (["--model", "a.py:f", "--network", "small"], "--network: got 'small' beside --model"),
        (["--train-size", "9999"], "--train-size: got 9999, expected 1 to 1297"),
    ],
)
def test_bad_options_are_named_and_leave_nothing(tmp_path, options, message, capsys):
    assert main(["roar", "--out", str(tmp_path / "out"), *TINY, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
