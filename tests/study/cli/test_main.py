import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captum_alignment.study import make_config, run_study
from captum_alignment.study.cli import main
from captum_alignment.study.cli._main import COMMANDS
from captum_alignment.study.cohort import _study, _train
from captum_alignment.study.cohort._claims import CLAIMS
from captum_alignment.study.compare import runs_in, summarise_runs
from captum_alignment.study.evaluation import _records, _work
from tests.study.compare.test_pictures import NAMES
from tests.study.conftest import TINY
from tests.study.pages import Page, table


def study(out: Path, *options: str) -> int:
    return main(["study", "--out", str(out), *TINY, *options])


EVALUATION = ("manifest.json", "parts/part-00000.parquet", "records.parquet", "gallery.npz")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_study_writes_everything(tiny_study):
    assert files(tiny_study) == {
        "manifest.json",
        "records.parquet",
        "summary.csv",
        "report.html",
        *(f"figures/{name}.png" for name in ("alignment", "strengths", "terms", *NAMES)),
        *(f"models/{name}_seed-0.pt" for name in ("standard", "lipschitz-0.01")),
        *(f"evaluations/{network}_seed-0/{name}" for network in ("standard", "lipschitz-0.01") for name in EVALUATION),
    }


def test_records_summary_and_report_agree(tiny_study):
    records = pd.read_parquet(tiny_study / "records.parquet")
    assert len(records) == 2 * 16
    assert records.groupby("model")["sample"].apply(frozenset).nunique() == 1
    summary = pd.read_csv(tiny_study / "summary.csv")
    pd.testing.assert_frame_equal(summary, summarise_runs(runs_in(tiny_study)))
    medians = records.groupby("strength")["distance"].median()
    np.testing.assert_allclose(summary["distance"], medians)
    gaps = records["direction_gap"] + records["bias_gap"]
    np.testing.assert_allclose(records["linearized_robustness"], records["alignment"] + gaps, atol=1e-5)
    html = (tiny_study / "report.html").read_text("utf-8")
    assert f"{medians.iloc[0]:#.3g}" in html
    assert "&lt;b&gt;tiny &amp; small" in html
    assert "<b>" not in html

    assert html.count('class="chip ') == html.count('class="ref"') == len(CLAIMS)
    assert table(html, "summary")["run"].tolist() == summary["run"].tolist()
    assert "http" not in html.replace("http-equiv", "")
    assert len(html) < 5e6


def test_the_report_prints_the_command_that_makes_it(tiny_study, tmp_path, monkeypatch):
    words = ["captum-alignment", "study", "--out", str(tiny_study), *TINY]
    assert shlex.join(words) in Page((tiny_study / "report.html").read_text("utf-8")).text
    out = tmp_path / "copy"
    shutil.copytree(tiny_study, out)
    config = make_config(
        strengths=(0.0, 0.01), epochs=8, train_size=400, eval_size=16, attacks=("gradient", "ddn"), seeds=1
    )
    printed = []
    monkeypatch.setattr(_study, "write_study_report", lambda *arguments: printed.append(arguments[-1]))
    run_study(config, out, data_root="a b")
    assert printed[0].startswith("captum-alignment study --dataset digits --data-root 'a b' ")
    assert printed[0].endswith(f" --out {out}")


def test_a_finished_study_repeats_nothing_but_its_summary(tiny_study, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(_train, "train", fail)
    monkeypatch.setattr(_work.Work, "_records", fail)
    assert study(tiny_study) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tiny_study / "report.html")
    assert sum(line.startswith("- ") for line in lines) == len(CLAIMS)
    assert any("accuracy" in line and "ρ" in line for line in lines)


def test_an_interrupted_study_continues(tiny_study, tmp_path, monkeypatch, capsys):
    out, calls = tmp_path / "out", {"train": 0, "_records": 0}

    def interrupt_second_call(module, name):
        whole = getattr(module, name)

        def interrupted(*args, **kwargs):
            calls[name] += 1
            if calls[name] == 2:
                raise KeyboardInterrupt
            return whole(*args, **kwargs)

        monkeypatch.setattr(module, name, interrupted)

    interrupt_second_call(_train, "train")
    interrupt_second_call(_work.Work, "_records")
    first = "standard_seed-0"
    assert study(out) == 130
    assert files(out) == {"manifest.json", f"models/{first}.pt"}
    assert study(out) == 130
    assert [path.parent.name for path in out.glob("evaluations/*/records.parquet")] == [first]
    assert "the same command continues" in capsys.readouterr().err
    assert study(out) == 0
    assert calls == {"train": 3, "_records": 3}
    assert_same_records(out, tiny_study)


def test_a_killed_study_continues(tiny_study, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "captum_alignment", "study", "--out", str(out), *TINY]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "models" / "standard_seed-0.pt").is_file() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = (out / "models" / "standard_seed-0.pt").read_bytes()
    assert not (out / "report.html").exists()
    assert study(out) == 0
    assert (out / "models" / "standard_seed-0.pt").read_bytes() == kept
    assert_same_records(out, tiny_study)
    assert files(out) == files(tiny_study)


def test_a_model_trained_anew_is_evaluated_anew(tiny_study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(tiny_study, out)
    weights = out / "models" / "standard_seed-0.pt"
    weights.write_bytes((out / "models" / "lipschitz-0.01_seed-0.pt").read_bytes())
    assert study(out) == 0
    records = pd.read_parquet(out / "records.parquet").set_index("strength")
    np.testing.assert_array_equal(records.loc[0.0, "alignment"], records.loc[0.01, "alignment"])


def test_evaluations_with_the_columns_of_another_version_are_repeated(tiny_study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(tiny_study, out)
    evaluated = []
    whole = _work.Work._records
    monkeypatch.setattr(_work.Work, "_records", lambda *a: evaluated.append(a) or whole(*a))
    old = _records.part_file(out / "evaluations" / "standard_seed-0", 0)
    frame = pd.read_parquet(old).drop(columns=["deviation", "input_term"])
    with monkeypatch.context() as earlier:
        earlier.setattr(_records, "VERSION", 1)
        _records.write_table(old, frame)
    monkeypatch.setattr(_train, "train", None)
    assert study(out) == 0
    assert len(evaluated) == 1
    assert_same_records(out, tiny_study)


def assert_same_records(out: Path, other: Path) -> None:
    found, expected = (pd.read_parquet(folder / "records.parquet") for folder in (out, other))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


def test_a_collapsed_model_is_left_out(tmp_path, capsys):
    options = ["--strengths", "0", "1e4", "--epochs", "8", "--train-size", "300", "--eval-size", "30"]
    assert study(tmp_path / "out", *options) == 0
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("strength")
    assert summary["usable"].to_dict() == {0.0: True, 1e4: False}
    assert summary.loc[1e4, "accuracy"] < 0.5
    out = capsys.readouterr().out
    assert "left out: too inaccurate" in out
    assert "1 usable model " in out
    html = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert table(html, "levels")["usable"].tolist() == ["", "left out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "imagenet"], "dataset: got 'imagenet'"),
        (["--dataset", "mnist"], "--download"),
        (["--dataset", "mnist", "--data-root", "/nowhere"], "/nowhere/MNIST/raw"),
        (["--strengths", "-1"], "strengths: got -1"),
        (["--attacks", "magic"], "attacks: got 'magic'"),
        (["--device", "tpu9"], "device: got 'tpu9'"),
        (["--threads", "0"], "threads: got 0"),
        (["--train-size", "99999"], "train_size: got 99999"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(tmp_path, capsys, options, message):
    out = tmp_path / "out"
    assert study(out, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("captum-alignment: ")
    assert error.count("\n") == 1
    assert not out.exists()
    with pytest.raises((ValueError, OSError)) as raised:
        study(out, *options, "--debug")
    assert message in str(raised.value)


def test_another_configuration_and_a_foreign_folder_are_refused(tiny_study, tmp_path, capsys):
    before = files(tiny_study)
    assert study(tiny_study, "--seed", "4") == 2
    assert "seed: 0 there, 4 here" in capsys.readouterr().err
    (tmp_path / "thesis.txt").touch()
    assert study(tmp_path) == 2
    assert "not empty and holds no study" in capsys.readouterr().err
    assert files(tiny_study) == before
    assert files(tmp_path) == {"thesis.txt"}


def test_an_unexpected_error_is_named_and_debug_shows_it(tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("out of paper")

    monkeypatch.setattr(_train, "train", fail)
    assert study(tmp_path / "a") == 2
    assert "RuntimeError: out of paper (--debug shows where)" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="out of paper"):
        study(tmp_path / "b", "--debug")


def test_argparse_errors_also_exit_with_2(capsys):
    for arguments in (
        [],
        ["study"],
        ["study", "--out", "x", "--epochs", "many"],
        ["study", "--out", "x", "--eval-size", "x"],
    ):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2
    capsys.readouterr()


#: What takes seconds to import, and what the extras bring.
SLOW = {"captum", "foolbox", "matplotlib", "numpy", "scipy", "torch", "torchvision"}
OPTIONAL = {"jinja2", "lightning", "pandas", "pyarrow", "safetensors", "sklearn"}


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_help_and_usage_errors_answer_before_anything_slow_or_optional_is_loaded(command, word, code):
    asked = (
        "import sys\n"
        "from captum_alignment.study.cli import main\n"
        "try:\n"
        f"    main([{command!r}, {word!r}])\n"
        "finally:\n"
        "    print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert f"usage: captum-alignment {command}" in done.stdout + done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "captum_alignment.study.cli._main" in loaded
    assert not loaded & (SLOW | OPTIONAL)


def test_a_missing_optional_dependency_is_named_with_the_command_that_brings_it(tmp_path):
    code = (
        "import sys; sys.modules['lightning'] = None\n"
        "from captum_alignment.study.cli._main import main\n"
        f"sys.exit(main(['study', '--out', {str(tmp_path / 'out')!r}]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("lightning is missing: pip install 'captum-alignment[study]'")
