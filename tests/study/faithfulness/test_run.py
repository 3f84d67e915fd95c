import numpy as np
import pandas as pd
import pytest
import torch

from captum_alignment.study.cli import main
from captum_alignment.study.compare import runs_in, summarise_runs
from captum_alignment.study.faithfulness._run import first_images, strengths_of
from captum_alignment.study.fit import TRAININGS
from captum_alignment.study.load import as_split
from tests.study.pages import Page, table
from tests.study.roar.known import TEST

SPLIT = as_split(TEST, "test", (0, 1))
FAST = ["--seeds", "1", "--fractions", "0.5"]


def test_all_radii_of_adversarial_training_and_every_other_strength_else():
    found = strengths_of(("standard", "distillation", "pgd-l2"), 64)
    assert found == {"standard": (0.0,), "distillation": (2.0, 10.0), "pgd-l2": TRAININGS["pgd-l2"].small[1:]}
    assert strengths_of(("pgd-linf",), 784)["pgd-linf"][0] == TRAININGS["pgd-linf"].large[1]
    with pytest.raises(ValueError, match="trainings: got 'pgd-l3', expected some of standard, lipschitz"):
        strengths_of(("pgd-l3",), 64)


def test_the_first_image_of_each_class_is_shown():
    assert torch.equal(first_images(SPLIT, 3), SPLIT.images[:3])


@pytest.mark.filterwarnings("ignore:no adversarial for")  # of a network that has hardly been trained
def test_the_command_trains_measures_and_continues(tmp_path, capsys):
    out = tmp_path / "<i>all"
    options = ["--train-size", "100", "--test-size", "20", "--epochs", "1", *FAST]
    command = ["supplement", "--out", str(out), *options, "--trainings", "distillation"]
    assert main(command) == 0
    found = pd.read_csv(out / "networks.csv")
    assert found["network"].tolist() == ["standard", "distillation-2", "distillation-10"]
    assert found[["distance", "signed_alignment", "absolute_null", "area", "beyond_random"]].notna().to_numpy().all()
    html = (out / "report.html").read_text("utf-8")
    assert "ranked by absolute gradients" in " ".join(Page(html).text.split())
    assert "<i>all" not in html
    np.testing.assert_allclose(found["distance"], summarise_runs(runs_in(out))["distance"])
    before = {path: path.stat().st_mtime_ns for path in (*out.glob("models/*"), *out.glob("roar/cells/*"))}
    assert len(before) == 3 + 5
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    capsys.readouterr()
    assert main([*command, "--signed"]) == 2
    assert "absolute: True there, False here" in capsys.readouterr().err


def test_a_finished_study_lends_its_networks_and_records(tiny_study, tmp_path, capsys):
    out, command = tmp_path / "out", ["supplement", "--study", str(tiny_study)]
    assert main([*command, "--out", str(out), *FAST]) == 0
    found = pd.read_csv(out / "networks.csv")
    summary = pd.read_csv(tiny_study / "summary.csv")
    assert found["network"].tolist() == ["standard", "lipschitz-0.01"]
    for name in ("accuracy", "distance", "distance_low", "distance_high"):
        np.testing.assert_allclose(found[name], summary[name])
    np.testing.assert_allclose(found["signed_alignment"], summary["alignment"], rtol=1e-5)
    assert not {"models", "evaluations"} & {path.name for path in out.iterdir()}
    assert len(table((out / "report.html").read_text("utf-8"), "networks")) == 2
    capsys.readouterr()
    assert main([*command, "--out", str(out), "--epochs", "3"]) == 2
    assert "--epochs: got it beside --study" in capsys.readouterr().err
    assert main(["supplement", "--study", str(tmp_path), "--out", str(tmp_path / "new")]) == 2
    assert "holds no study" in capsys.readouterr().err
