import numpy as np
import pandas as pd
import pytest
import torch

from captum_alignment.metrics import alignment_null
from captum_alignment.study.cli import main
from captum_alignment.study.faithfulness import verdict
from captum_alignment.study.faithfulness._networks import (
    Trained,
    gradients_of,
    measure_network,
    networks_of,
    read_measures,
)
from captum_alignment.study.faithfulness._run import first_images
from captum_alignment.study.fit import TRAININGS
from captum_alignment.study.load import as_split
from tests.study.cohort.test_report import Page
from tests.study.roar.known import TEST, known_network

SPLIT = as_split(TEST, "test", (0, 1))


def test_all_radii_of_adversarial_training_and_every_other_strength_else():
    found = networks_of(("standard", "distillation", "pgd-l2"), 64)
    assert [one.name for one in found][:3] == ["standard", "distillation 2", "distillation 10"]
    assert [one.strength for one in found[3:]] == list(TRAININGS["pgd-l2"].small[1:])
    assert networks_of(("pgd-linf",), 784)[1].strength == TRAININGS["pgd-linf"].large[1]
    with pytest.raises(ValueError, match="trainings: got 'pgd-l3', expected some of standard, lipschitz"):
        networks_of(("pgd-l3",), 64)


def test_measures_are_the_librarys_numbers_of_signed_and_absolute_gradients(tmp_path):
    one, net = Trained("pgd-l2", 0.5), known_network()
    measure_network(one, net, SPLIT, tmp_path, torch.device("cpu"))
    found = read_measures(one, tmp_path)
    predicted = net(SPLIT.images).argmax(1)
    weight = next(net.parameters()).detach()
    maps = weight[predicted].view(SPLIT.images.shape)
    chance = alignment_null(SPLIT.images, maps)
    assert found["signed_alignment"] == pytest.approx(float(chance.alignment.median()), rel=1e-2)
    assert found["absolute_rank"] == found["signed_rank"]  # its weights are not negative
    assert found["accuracy"] == 1
    assert found["distance_low"] <= found["distance"] <= found["distance_high"]
    assert (found["network"], found["training"], found["strength"]) == ("pgd-l2 0.5", "pgd-l2", 0.5)


def test_gradients_are_those_of_the_class_that_the_network_itself_predicts():
    images = SPLIT.images[:4].clone().requires_grad_()
    found = gradients_of(known_network(), torch.device("cpu"))(images, torch.zeros(4, dtype=torch.long))
    weight = next(known_network().parameters()).detach()
    torch.testing.assert_close(found, weight[SPLIT.labels[:4]].view(found.shape))


def make_table(n, noise=0.0):
    rng = np.random.default_rng(0)
    distance = np.linspace(0.5, 1.5, n)
    return pd.DataFrame({"distance": distance, "area": 1 - distance / 3 + noise * rng.normal(size=n), "usable": True})


def test_the_verdict_claims_no_more_than_the_number_of_networks_allows():
    assert "3 usable networks are too few" in verdict(make_table(3))
    assert "too few for an interval, and so for a conclusion" in verdict(make_table(6))
    assert "robustness goes with faithfulness" in verdict(make_table(14, 0.02))
    assert "no correlation can be told from chance" in verdict(make_table(14, 5.0))
    flipped = make_table(14, 0.02)
    assert "goes against" in verdict(flipped.assign(area=-flipped["area"]))
    assert "Over 12 usable" in verdict(make_table(14).assign(usable=[False] * 2 + [True] * 12, area=np.arange(14) % 5))
    assert "no correlation" in verdict(make_table(6).assign(area=0.5))


def test_the_first_image_of_each_class_is_shown():
    assert torch.equal(first_images(SPLIT, 3), SPLIT.images[:3])


@pytest.mark.filterwarnings("ignore:no adversarial for")  # of a network that has hardly been trained
def test_the_command_trains_measures_and_continues(tmp_path, capsys):
    out = tmp_path / "<i>all"
    options = ["--train-size", "100", "--test-size", "20", "--epochs", "1", "--seeds", "1", "--fractions", "0.5"]
    command = ["supplement", "--out", str(out), *options, "--trainings", "distillation"]
    assert main(command) == 0
    table = pd.read_csv(out / "networks.csv")
    assert table["network"].tolist() == ["standard", "distillation 2", "distillation 10"]
    assert table[["distance", "signed_alignment", "absolute_null", "area", "beyond_random"]].notna().to_numpy().all()
    html = (out / "report.html").read_text("utf-8")
    assert "ranked by absolute gradients" in " ".join(Page(html).text.split())
    assert "<i>all" not in html
    before = {path: path.stat().st_mtime_ns for path in (*out.glob("networks/*"), *out.glob("roar/cells/*"))}
    assert len(before) == 6 + 5
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    capsys.readouterr()
    assert main([*command, "--signed"]) == 2
    assert "absolute: True there, False here" in capsys.readouterr().err
