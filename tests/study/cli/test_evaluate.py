import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from captum_alignment.study import load_dataset, read_records
from captum_alignment.study.cli import main
from tests.test_examples import ROOT

FACTORY = """
import torch
from torch import nn

def make(width=8, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))

def broken():
    raise RuntimeError("no such luck")

def nothing():
    return 3
"""
TINY = ["--data", "digits", "--subset", "12", "--attacks", "gradient", "--part-size", "5", "--attributions", "saliency"]


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture(scope="module")
def run(factory, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "<i>tiny"
    assert main(["evaluate", "--model", f"{factory}:make", "--out", str(out), *TINY]) == 0
    return out


def test_a_model_file_and_a_data_set_by_name_give_records_and_a_report(run, capsys):
    records = read_records(run)
    assert len(records) == 12
    assert records["error"].isna().all()
    assert records["label"].notna().all()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["config"]["dataset"] == "digits"
    assert manifest["config"]["size"] == 12
    html = (run / "report.html").read_text("utf-8")
    assert "&lt;i&gt;tiny" in html
    assert "<i>tiny" not in html


def test_every_column_is_documented(run):
    documented = (ROOT / "docs" / "evaluate.md").read_text("utf-8")
    for name in read_records(run).columns:
        kind, _, rest = name.partition(":")
        shown = f"`{kind}:" if rest else f"`{name}`"
        assert shown in documented or (name.startswith("distance_") and "`distance_NAME`" in documented), name


def test_the_same_command_repeats_nothing_and_another_is_refused(run, factory, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.glob("parts/*")}
    assert main(["evaluate", "--model", f"{factory}:make", "--out", str(run), *TINY]) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("parts/*")} == before
    assert main(["evaluate", "--model", f"{factory}:make", "--out", str(run), *TINY, "--seed", "3"]) == 2
    assert "seed: 0 there, 3 here" in capsys.readouterr().err


def test_weights_and_normalisation_become_part_of_the_model(run, factory, tmp_path):
    torch.manual_seed(1)
    state = {f"module.{k}": v for k, v in _load(factory).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    options = ["--weights", str(tmp_path / "w.pt"), "--mean", "0.5", "--std", "0.25"]
    out = tmp_path / "out"
    assert main(["evaluate", "--model", f"{factory}:make", "--out", str(out), *options, *TINY]) == 0
    plain, scaled = read_records(run), read_records(out)
    assert plain["sample"].tolist() == scaled["sample"].tolist()
    assert not np.allclose(plain["distance"], scaled["distance"])
    assert {"mean", "std"} <= json.loads((out / "manifest.json").read_text())["config"].keys()


def _load(factory):
    namespace: dict = {}
    exec(factory.read_text(), namespace)
    return namespace["make"]()


def test_runs_are_compared(run, factory, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["evaluate", "--model", f"{factory}:make(width=16)", "--out", str(other), *TINY]) == 0
    capsys.readouterr()
    assert main(["report", str(run), str(other), "--out", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "both.html")
    html = (tmp_path / "both.html").read_text("utf-8")
    assert "other" in html
    assert "&lt;i&gt;tiny" in html
    assert main(["report", str(other)]) == 0
    assert capsys.readouterr().out.strip() == str(other / "report.html")


def test_two_processes_of_torchrun_share_the_work(run, factory, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "captum_alignment", "evaluate", "--model", f"{factory}:make", "--out", str(out), *TINY]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("12 samples") == 1
    apart, alone = (read_records(folder).drop(columns="seconds:saliency") for folder in (out, run))
    assert apart.filter(like=":saliency").notna().any().sum() == 7
    pd.testing.assert_frame_equal(apart, alone, rtol=1e-4, atol=1e-5)


def workers_of(out) -> list[int]:
    """The processes that torchrun has started for the run in ``out``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"LOCAL_RANK=" in (folder / "environ").read_bytes() and str(out) in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found through /proc")
def test_a_worker_that_dies_is_restarted_by_torchrun_and_carries_on(factory, tmp_path):
    out = tmp_path / "out"
    options = ["--data", "digits", "--subset", "60", "--attacks", "gradient", "--part-size", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "2", "-m", "captum_alignment", "evaluate", "--model", f"{factory}:make"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", str(out), *options], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("parts/part-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    first = workers_of(out)
    os.kill(max(first), signal.SIGKILL)
    assert process.wait(200) == 0
    assert len(first) == 2
    records = read_records(out)
    assert records["sample"].is_unique
    assert len(records) == 60
    assert main(["evaluate", "--model", f"{factory}:make", "--out", str(tmp_path / "one"), *options]) == 0
    pd.testing.assert_frame_equal(records, read_records(tmp_path / "one"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "{file}:broken"], "RuntimeError"),
        (["--model", "{file}:nothing"], "int"),
        (["--model", "{file}:mak"], "make"),
        (["--model", "{file}:make", "--data", "digitz"], "digits"),
        (["--model", "{file}:make", "--data", "mnist"], "--data-root"),
        (["--model", "{file}:make", "--weights", "/nowhere.pt"], "/nowhere.pt"),
        (["--model", "{file}:make(classes=3)"], "the model has classes 0 to 2"),
        (["--model", "{file}:make", "--resize", "9"], "model: raised RuntimeError on images of shape (1, 9, 9)"),
        (["--model", "{file}:make", "--device", "tpu9"], "device: got 'tpu9'"),
        (["--model", "{file}:make", "--norm", "3"], "norm: got 3"),
        (["--model", "{file}:make", "--subset", "999999"], "subset: got 999999"),
        (["--model", "{file}:make", "--batch-size", "0"], "batch_size: got 0"),
        (["--model", "{file}:make", "--out", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(factory, tmp_path, capsys, options, message):
    options = [option.replace("{file}", str(factory)) for option in options]
    given = ["--out", str(tmp_path / "out"), "--data", "digits", "--attacks", "gradient", *options]
    assert main(["evaluate", *given]) == 2
    error = capsys.readouterr().err.splitlines()
    lines = [line for line in error if line and not line.lstrip("\r").startswith("evaluating")]
    assert len(lines) == 1
    assert lines[0].startswith("captum-alignment: ")
    assert message in lines[0]


def test_what_is_no_run_is_not_reported(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no evaluation" in capsys.readouterr().err


def test_maps_are_compared_with_a_folder_of_masks(factory, tmp_path, capsys):
    masks, arguments = tmp_path / "masks", ["evaluate", "--model", f"{factory}:make", *TINY]
    masks.mkdir()
    for name in load_dataset("digits").ids:
        np.save(masks / f"{name}.npy", np.eye(8))
    arguments += ["--masks", str(masks)]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    records = read_records(tmp_path / "run")
    assert (records["mask"] == 1 / 8).all()
    assert records["mass:saliency"].between(0, 1, inclusive="neither").all()
    assert set(records["pointing:saliency"]) <= {0, 1}
    assert "mass inside mask" in (tmp_path / "run" / "report.html").read_text("utf-8")
    np.save(masks / f"{records['id'][3]}.npy", np.eye(9))
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 2
    assert "has shape (9, 9), expected (8, 8), as its image" in " ".join(capsys.readouterr().err.split())
