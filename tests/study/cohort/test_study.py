import pandas as pd
import pytest

from captum_alignment.study.cli import main
from captum_alignment.study.cohort import _train, make_config, run_study
from captum_alignment.study.cohort._claims import CLAIMS
from captum_alignment.study.compare import report
from tests.study.pages import table

TINY = ["--epochs", "4", "--train-size", "300", "--eval-size", "12", "--attacks", "gradient", "--seeds", "1"]
TRAININGS = ["jacobian", "distillation"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("trainings") / "out"
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        whole = _train.train
        patch.setattr(_train, "train", lambda member, *a, **k: trained.append(member) or whole(member, *a, **k))
        assert main(["study", "--out", str(out), "--regularizer", *TRAININGS, *TINY]) == 0
    return out, trained


def test_networks_that_trainings_share_are_trained_once(finished):
    out, trained = finished
    assert [member.network for member in trained].count("standard") == 1
    assert len(trained) == 1 + 4 + 4
    records = pd.read_parquet(out / "records.parquet")
    assert records["training"].value_counts().to_dict() == {"jacobian": 48, "distillation": 48, "standard": 12}
    assert pd.read_csv(out / "summary.csv")["run"].tolist() == [member.name for member in trained]


def test_the_report_compares_the_trainings(finished):
    out, _ = finished
    html = (out / "report.html").read_text("utf-8")
    assert html.count('class="chip ') == 2 * 2 * len(CLAIMS)
    assert table(html, "levels").groupby("training").size().to_dict() == {"distillation": 5, "jacobian": 5}
    assert "--regularizer jacobian distillation" in html


def test_the_runs_of_a_study_are_reported_beside_any_other(finished, tmp_path):
    out, trained = finished
    path = report([out])
    assert path == out / "runs.html"
    found = table(path.read_text("utf-8"), "summary")["run"].tolist()
    assert found[0] == "standard_seed-0"
    assert sorted(found) == sorted(member.name for member in trained)
    both = report([out, out / "evaluations" / "standard_seed-0"], out=tmp_path / "both.html").read_text("utf-8")
    assert len(table(both, "summary")) == len(trained) + 1


def test_the_same_command_repeats_nothing(finished, monkeypatch):
    out, _ = finished
    monkeypatch.setattr(_train, "train", None)
    assert main(["study", "--out", str(out), "--regularizer", *TRAININGS, *TINY]) == 0


def test_mistakes_are_named(finished, tmp_path, capsys):
    out, _ = finished
    wrong = {
        "regularizer: got 'dropout'": ["--regularizer", "jacobian", "dropout"],
        "strengths: got some for several": ["--regularizer", *TRAININGS, "--strengths", "1"],
        "regularizers: got jacobian jacobian": ["--regularizer", "jacobian", "jacobian"],
        "the preset etmann-mnist has its own": ["--regularizer", "jacobian", "--preset", "etmann-mnist"],
    }
    for message, options in wrong.items():
        assert main(["study", "--out", str(tmp_path / "new"), *options, *TINY]) == 2
        assert message in capsys.readouterr().err
    assert main(["study", "--out", str(out), "--regularizer", "jacobian", "lipschitz", *TINY]) == 2
    assert "trainings: " in capsys.readouterr().err
    configs = [make_config(regularizer="jacobian"), make_config(regularizer="lipschitz", epochs=2)]
    with pytest.raises(ValueError, match="differ in more than"):
        run_study(configs, tmp_path / "other")
    with pytest.raises(ValueError, match="got no configuration"):
        run_study([], tmp_path / "other")
