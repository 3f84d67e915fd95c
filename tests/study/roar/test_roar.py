import json
import os
import signal
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_alignment.study import remove_and_retrain
from captum_alignment.study.roar import _roar
from captum_alignment.study.roar._grid import UNMODIFIED
from tests.nets import assert_unchanged, snapshot
from tests.study.evaluation.test_evaluate import free_port, kill_when
from tests.study.roar.known import CLASSES, FAST, METHODS, SIZE, TEST, TRAIN, Marked, constant, known_network, network

GRID = {"methods": METHODS, "fractions": (0.2, 0.5), "modes": ("roar", "kar"), "seeds": (0, 1)}
SMALL = {"methods": ("random", "sobel"), "fractions": (0.25, 0.5), "epochs": 1}


def study(out, **options) -> pd.DataFrame:
    return remove_and_retrain(known_network(), network, TRAIN, TEST, out=out, **{**FAST, **options})


def without_time(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.drop(columns="seconds")


def times(out) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and areas of attributions whose order is known."""
    out = tmp_path_factory.mktemp("known") / "roar"
    return study(out, **GRID), pd.read_csv(out / "areas.csv")


def test_removing_what_is_known_to_inform_leaves_chance_and_keeping_it_is_enough(known):
    accuracy = known[0].groupby(["mode", "method", "fraction"])["accuracy"].mean()
    assert accuracy[UNMODIFIED, UNMODIFIED, 0.0] > 0.95
    for fraction in (0.2, 0.5):
        assert accuracy["roar", "perfect", fraction] < 0.45
        assert accuracy["kar", "perfect", fraction] > 0.95
        assert accuracy["roar", "reversed", fraction] > 0.95
        assert accuracy["kar", "reversed", fraction] < 0.45
        for mode in ("roar", "kar"):
            assert 0.4 < accuracy[mode, "random", fraction] < 0.95 + 0.03 * (mode == "roar")


def test_roar_ranks_perfect_random_reversed_and_kar_the_other_way_round(known):
    area = known[1].set_index(["mode", "method"])["area"]
    assert area["roar", "perfect"] + 0.1 < area["roar", "random"] < area["roar", "reversed"] - 0.05
    assert area["kar", "reversed"] + 0.1 < area["kar", "random"] < area["kar", "perfect"] - 0.05
    beyond = known[1].set_index(["mode", "method"])["beyond_random"]
    assert (beyond[:, "perfect"] > 0.05).all()
    assert (beyond[:, "reversed"] < -0.05).all()
    assert beyond[:, "random"].isna().all()


def test_the_records_say_where_chance_ranked(tmp_path):
    cells = study(tmp_path, methods={"constant": constant, "random": "random"}, fractions=(0.5,), epochs=1)
    cells = cells.set_index("method")
    for split, size in (("train", len(TRAIN)), ("test", len(TEST))):
        for kind in ("constant", "tied"):
            assert cells[f"{kind}_{split}"].to_dict() == {UNMODIFIED: 0, "constant": size, "random": 0}
    assert "100.0 %" in (tmp_path / "report.html").read_text("utf-8")


def test_the_same_call_repeats_nothing_and_a_larger_grid_adds_to_it(tmp_path, monkeypatch):
    first = study(tmp_path, **SMALL)
    before = times(tmp_path)
    more = study(tmp_path, **{**SMALL, "methods": ("random", "sobel", "saliency")})
    assert {name: times(tmp_path)[name] for name in before} == before
    assert len(more) == len(first) + 2
    pd.testing.assert_frame_equal(
        without_time(more.query("method != 'saliency'").reset_index(drop=True)), without_time(first)
    )
    monkeypatch.setattr(_roar, "run_cell", None)
    pd.testing.assert_frame_equal(study(tmp_path, **SMALL), first)


def test_an_interrupted_study_runs_the_missing_cells_alone(tmp_path, monkeypatch):
    expected = study(tmp_path / "whole", **SMALL)
    ran, run_cell = [], _roar.run_cell

    def interrupted(cell, *args, **options):
        ran.append(cell.name)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return run_cell(cell, *args, **options)

    monkeypatch.setattr(_roar, "run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "broken", **SMALL)
    assert len(times(tmp_path / "broken")) == 3
    found = study(tmp_path / "broken", **SMALL)
    assert len(set(ran)) == len(expected) == len(ran) - 1
    pd.testing.assert_frame_equal(without_time(found), without_time(expected))


def test_with_a_seed_all_cells_begin_with_the_same_weights(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(network())
        return made[-1]

    monkeypatch.setattr(_roar, "check_factory", lambda *_: None)
    remove_and_retrain(known_network(), make, TRAIN, TEST, out=tmp_path, **SMALL, learning_rate=1e-9, seeds=(0, 1))
    weights = [net[1].weight for net in made]
    same = [bool(torch.allclose(weights[0], other, atol=1e-6)) for other in weights]
    assert same == [True] * 5 + [False] * 5


@pytest.mark.parametrize("absolute", [False, True])
def test_signed_and_absolute_rankings_differ_and_captums_objects_are_methods(tmp_path, absolute):
    methods: dict[str, Any] = {
        "mine": lambda images, targets: -Saliency(known_network()).attribute(images, targets, abs=False)
    }
    methods["captum"] = Saliency(known_network())
    cells = study(tmp_path, methods=methods, fractions=(0.2,), absolute=absolute).set_index("method")
    # The class's own two pixels are the last of the negated signed map, and the first of the absolute one.
    assert (cells.loc["mine", "accuracy"] > 0.95) != absolute or cells.loc["captum", "accuracy"] == pytest.approx(
        cells.loc["mine", "accuracy"]
    )


def test_the_model_leaves_as_it_came(tmp_path):
    net = nn.Sequential(nn.BatchNorm2d(1), known_network(), nn.Dropout(0.5)).train()
    before = snapshot(net)
    remove_and_retrain(net, network, TRAIN, TEST, out=tmp_path, **{**SMALL, "methods": ("saliency",)})
    assert_unchanged(net, before)
    assert net.training


def same_weights():
    torch.manual_seed(0)
    return network()


def unlabelled():
    return [image for image, _ in Marked(8)]


def binary():
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 1))


def three_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, CLASSES - 1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"make_model": same_weights}, ValueError, "make_model: returned the same weights twice"),
        ({"make_model": lambda: 3}, TypeError, "make_model: returned int"),
        ({"make_model": three_classes}, ValueError, "make_model: has classes 0 to 2, but there are labels from 0 to 3"),
        ({"make_model": binary}, ValueError, r"make_model: returned scores of shape \(2, 1\)"),
        ({"methods": ("salincy",)}, ValueError, "methods: got 'salincy'.*did you mean saliency"),
        ({"methods": "saliency"}, TypeError, "methods: got the text"),
        ({"methods": {"a": 3}}, TypeError, "methods: 'a' is of type int"),
        ({"methods": {"a/b": constant}}, ValueError, "methods: got the name 'a/b'"),
        ({"methods": ()}, ValueError, "methods: got none"),
        (
            {"methods": {"wide": lambda x, t: x[..., :3]}},
            ValueError,
            r"wide: method: returned maps of shape \(64, 1, 8, 3\)",
        ),
        ({"methods": {"nan": lambda x, t: x * torch.nan}}, ValueError, "nan: .*NaN"),
        ({"fractions": (0.5, 1.0)}, ValueError, "fractions: got 1, expected numbers between 0 and 1"),
        ({"fractions": (0.0,)}, ValueError, "fractions: got 0"),
        ({"fractions": (0.001,)}, ValueError, "fractions: 0.001 of 64 features are none or all"),
        ({"fractions": (0.5, 0.5)}, ValueError, "fractions: got 0.5, 0.5, expected each once"),
        ({"modes": ("raor",)}, ValueError, "modes: got 'raor', expected 'roar' or 'kar'"),
        ({"seeds": (-1,)}, ValueError, "seeds: got -1"),
        ({"per": "patch"}, ValueError, "per: got 'patch'"),
        ({"epochs": 0}, ValueError, "epochs: got 0"),
        ({"optimizer": "lion"}, ValueError, "optimizer: got 'lion'"),
        ({"train": unlabelled()}, ValueError, r"train: sample 0 \(0\) cannot be used: it has no label"),
        ({"test": Marked(8, channels=3)}, ValueError, r"test: got images of shape \(3, 8, 8\), expected \(1, 8, 8\)"),
        ({"device": "abacus"}, ValueError, "device: got 'abacus'"),
        ({"learning_rate": 3e38, "optimizer": "sgd"}, ValueError, "unmodified_seed-0: the training diverged"),
    ],
)
def test_bad_input_is_named(tmp_path, options, error, message):
    options = {"make_model": network, "train": TRAIN, "test": TEST, **SMALL, **options}
    make, train, test = (options.pop(name) for name in ("make_model", "train", "test"))
    with pytest.raises(error, match=message):
        remove_and_retrain(known_network(), make, train, test, out=tmp_path / "out", **options)


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    study(tmp_path, **SMALL, about={"data": "marked"})
    assert json.loads((tmp_path / "manifest.json").read_text())["config"]["data"] == "marked"
    with pytest.raises(ValueError, match="epochs: 1 there, 2 here"):
        study(tmp_path, **{**SMALL, "epochs": 2}, about={"data": "marked"})
    with pytest.raises(ValueError, match="test data: "):
        remove_and_retrain(
            known_network(),
            network,
            TRAIN,
            Marked(100, seed=2),
            out=tmp_path,
            **{**FAST, **SMALL},
            about={"data": "marked"},
        )


SCRIPT = """
import sys
from typing import Any
import torch
from tests.study.roar import test_roar
torch.set_num_threads(1)
test_roar.study(sys.argv[1], **getattr(test_roar, sys.argv[2]))
"""


def start(out, grid, processes=1, port=0) -> list[subprocess.Popen]:
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(out), grid],
            env={**os.environ, "OMP_NUM_THREADS": "1", **(shared | {"RANK": str(rank)} if processes > 1 else {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def test_two_processes_share_the_cells(tmp_path):
    expected, out = study(tmp_path / "alone", **SMALL), tmp_path / "shared"
    workers = start(out, "SMALL", 2, free_port())
    errors = [worker.communicate(timeout=200)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    pd.testing.assert_frame_equal(without_time(pd.read_csv(out / "cells.csv")), without_time(expected))
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_a_study_killed_again_and_again_equals_the_uninterrupted_one(tmp_path, known):
    out, kills = tmp_path / "roar", 0
    while kills < 4:
        before = times(out)
        workers = start(out, "GRID", 2, free_port())
        kill_when(lambda before=before: len(times(out)) > len(before) + 1, workers)
        kills += any(worker.returncode == -signal.SIGKILL for worker in workers)
        assert {name: times(out)[name] for name in before} == before
        if (out / "cells.csv").is_file():  # finished before the signal: lose something
            for path in ((out / "cells.csv"), *sorted((out / "cells").glob("*.json"))[:9]):
                path.unlink()
    (worker,) = start(out, "GRID")
    errors = worker.communicate(timeout=200)[1]
    assert worker.returncode == 0, errors
    pd.testing.assert_frame_equal(without_time(pd.read_csv(out / "cells.csv")), without_time(known[0]))
    assert not [path for path in out.rglob("*") if path.name.endswith(".unfinished")]
