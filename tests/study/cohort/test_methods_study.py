import pandas as pd
import pytest

from captum_alignment.study.cli import main
from captum_alignment.study.cohort import _train, make_config, run_methods

TINY = ["--epochs", "4", "--train-size", "300", "--eval-size", "12", "--attacks", "gradient"]
METHODS = ["jacobian", "distillation"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("methods") / "out"
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        whole = _train.train
        patch.setattr(_train, "train", lambda member, *a, **k: trained.append(member) or whole(member, *a, **k))
        assert main(["study", "--out", str(out), "--regularizer", *METHODS, *TINY]) == 0
    return out, trained


def test_every_method_has_its_study_and_plain_networks_are_trained_once(finished):
    out, trained = finished
    plain = [member for member in trained if member.strength == 0]
    assert len(plain) == 1
    assert len(trained) == 1 + 4 + 4
    frames = {name: pd.read_parquet(out / name / "records.parquet") for name in METHODS}
    for name, frame in frames.items():
        assert (out / name / "report.html").is_file()
        assert frame["strength"].nunique() == 5
    a, b = (frame.query("strength == 0").reset_index(drop=True) for frame in frames.values())
    pd.testing.assert_frame_equal(a, b)
    assert not frames["jacobian"]["distance"].equals(frames["distillation"]["distance"])


def test_the_report_compares_the_methods(finished):
    out, _ = finished
    html = (out / "report.html").read_text("utf-8")
    for name in METHODS:
        assert f'href="{name}/report.html"' in html
        assert f"<dt>{name}</dt>" in html
    assert html.count('class="chip ') == 2 * 11
    assert html.count("<img") == 2
    study = (out / "distillation" / "report.html").read_text("utf-8")
    assert "T from 0 to" in study
    assert "λ = " not in study
    assert "--regularizer distillation" in study


def test_the_same_command_repeats_nothing(finished, monkeypatch):
    out, _ = finished
    monkeypatch.setattr(_train, "train", None)
    assert main(["study", "--out", str(out), "--regularizer", *METHODS, *TINY]) == 0


def test_mistakes_are_named(finished, tmp_path, capsys):
    out, _ = finished
    wrong = {
        "regularizer: got 'dropout'": ["--regularizer", "jacobian", "dropout"],
        "strengths: got some for several": ["--regularizer", *METHODS, "--strengths", "1"],
        "regularizers: got jacobian jacobian": ["--regularizer", "jacobian", "jacobian"],
        "the preset etmann-mnist has its own": ["--regularizer", "jacobian", "--preset", "etmann-mnist"],
    }
    for message, options in wrong.items():
        assert main(["study", "--out", str(tmp_path / "new"), *options, *TINY]) == 2
        assert message in capsys.readouterr().err
    assert main(["study", "--out", str(out), "--regularizer", "jacobian", "lipschitz", *TINY]) == 2
    assert "methods: " in capsys.readouterr().err
    configs = [make_config(regularizer="jacobian"), make_config(regularizer="lipschitz", epochs=2)]
    with pytest.raises(ValueError, match="differ in more than"):
        run_methods(configs, tmp_path / "other")
