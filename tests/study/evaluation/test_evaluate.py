import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import alignment_null, alignment_null_of_maps, exchangeability_test
from captum_alignment.study.evaluation import _measure, _plan, _work, evaluate, read_records, read_run
from captum_alignment.study.evaluation._measure import explain
from captum_alignment.study.evaluation._records import gallery_file, part_file
from tests.nets import assert_unchanged, cnn, images, snapshot

N, PART = 23, 8
#: What the other samples decide.
BY_OTHERS = ("null", "excess", "rank", "map_null", "class_excess", "class_variance")


class Images:
    """Random images whose labels are what `network` says, but for every fifth."""

    classes = ("a", "b", "c", "d", "e")

    def __init__(self, n=N):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(n, 2, 6, 6, generator=generator)
        self.ids = [f"image-{i}" for i in range(n)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], (int(network()(self.images[index : index + 1]).argmax()) + (index % 5 == 0)) % 5


class WithCorrupt(Images):
    def __getitem__(self, index):
        if index in (3, 11):
            raise OSError(f"{self.ids[index]} is truncated")
        return super().__getitem__(index)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)]
    return nn.Sequential(*layers).eval()


def assert_same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return evaluate(network(), Images(), part_size=PART)


def test_the_records_are_the_librarys_numbers():
    net, data, names = network(), Images(), ("gradient", "ddn")
    frame = evaluate(net, data, part_size=N, attacks=names)
    x = data.images
    analysis = linear_analysis(net, x)
    found = adversarial_distance(net, x, attacks=names)
    null = alignment_null(x, analysis.gradient)
    within = exchangeability_test(x, analysis.gradient, analysis.target)
    expected = {
        "sample": torch.arange(N),
        "label": torch.tensor([data[i][1] for i in range(N)]),
        "prediction": analysis.target,
        **{name: value for name, value in analysis.scalars().items() if name != "target"},
        **{name: getattr(null, name) for name in ("null", "excess", "rank")},
        "map_null": alignment_null_of_maps(x, analysis.gradient),
        "class_excess": within.excess,
        "class_variance": within.variance,
        "distance": found.distance,
        **{f"distance_{name}": value for name, value in found.by_attack.items()},
    }
    explained = explain(net, x, analysis, found.adversarials)
    assert {*expected, *explained, "attack", "reason", "id", "error"} == set(frame)
    for name, value in expected.items():
        np.testing.assert_allclose(frame[name].to_numpy(float), value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(frame[explained.columns], explained, rtol=1e-4, atol=1e-5)
    assert frame["id"].tolist() == data.ids
    assert frame["error"].isna().all()
    assert (frame["distance"] <= frame[["distance_gradient", "distance_ddn"]].min(axis=1) * (1 + 1e-6)).all()


def test_parts_and_batches_change_nothing_but_rounding(whole):
    assert_same(evaluate(network(), Images(), part_size=N, batch_size=5), whole)


def test_the_chance_level_depends_on_no_part(monkeypatch):
    """A sample among its group of 10 or 11; one corrupt image is nobody's other, whatever part it is in."""
    monkeypatch.setattr(_plan, "_GROUP", 12)
    names = ["sample", "alignment", *BY_OTHERS]
    cut = functools.partial(evaluate, network(), WithCorrupt(), attacks=("gradient",))
    frames = [cut(part_size=size).filter(names) for size in (7, 64, None)]
    for frame in frames[1:]:
        assert_same(frame, frames[0])
    group = [i for i in range(1, N, 2) if i not in (3, 11)]
    x = Images().images[group]
    expected = alignment_null(x, linear_analysis(network(), x).gradient)
    got = frames[0].set_index("sample").loc[group]
    for name in ("null", "rank"):
        np.testing.assert_allclose(got[name], getattr(expected, name), rtol=1e-4)


def test_files_hold_what_memory_holds_and_the_same_call_repeats_nothing(whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert_same(evaluate(network(), Images(), out=out, part_size=PART), whole)
    assert [path.name for path in sorted((out / "parts").iterdir())] == [f"part-0000{i}.parquet" for i in range(3)]
    monkeypatch.setattr(_work.Work, "_records", None)
    monkeypatch.setattr(_work, "measure", None)
    assert_same(evaluate(network(), Images(), out=out, part_size=PART), whole)
    assert_same(pd.read_parquet(out / "records.parquet").sort_values("sample", ignore_index=True), whole)


def test_an_interrupted_run_continues(whole, tmp_path, monkeypatch):
    out, of_part, measured = tmp_path / "run", _work.Work._records, []

    def once(work, read, bar):
        measured.append(read)
        return 1 / 0 if len(measured) > 1 else of_part(work, read, bar)

    with monkeypatch.context() as patch:
        patch.setattr(_work.Work, "_records", once)
        with pytest.raises(ZeroDivisionError):
            evaluate(network(), Images(), out=out, part_size=PART)
    kept = part_file(out, 0).stat().st_mtime_ns
    with pytest.raises(ValueError, match="not finished"):
        read_records(out)
    assert_same(evaluate(network(), Images(), out=out, part_size=PART), whole)
    assert part_file(out, 0).stat().st_mtime_ns == kept
    assert evaluate(network(), Images(), out=out, part_size=PART, read=False).empty


def test_the_gallery_shows_the_extremes_and_adversarials_are_adversarial(whole, tmp_path):
    evaluate(network(), Images(), out=tmp_path, part_size=PART)
    shown = read_run(tmp_path).gallery
    order = whole.sort_values("distance")["sample"].tolist()
    assert shown["kind"].tolist() == ["least"] * 6 + ["most"] * 6
    assert shown["sample"].tolist() == order[:6] + order[::-1][:6]
    images, moved = (torch.from_numpy(shown[name]) for name in ("image", "adversarial"))
    torch.testing.assert_close(images, Images().images[shown["sample"]])
    assert (network()(images).argmax(1) != network()(moved).argmax(1)).all()
    lengths = (moved - images).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(lengths, whole["distance"][shown["sample"]], rtol=1e-4)


def test_chosen_samples_are_shown(tmp_path):
    evaluate(network(), Images(), out=tmp_path, part_size=PART, shown=[4, 2])
    shown = read_run(tmp_path).gallery
    assert shown["kind"].tolist() == ["shown"] * 2
    assert shown["sample"].tolist() == [4, 2]


def test_a_corrupt_sample_has_a_reason_and_loses_no_other(whole, tmp_path):
    frame = evaluate(network(), WithCorrupt(), part_size=PART, out=tmp_path, num_workers=1)
    bad = frame["sample"].isin([3, 11])
    assert frame.loc[bad, "error"].tolist() == ["OSError: image-3 is truncated", "OSError: image-11 is truncated"]
    assert frame.loc[bad, ["distance", "alignment", "prediction", "label"]].isna().all(axis=None)
    same = [name for name in whole if name not in BY_OTHERS]
    assert_same(frame.loc[~bad, same].reset_index(drop=True), whole.loc[~bad, same].reset_index(drop=True))
    with pytest.raises(ValueError, match=r"sample 3 \(image-3\): OSError: image-3 is truncated"):
        evaluate(network(), WithCorrupt(), part_size=PART, strict=True)


def test_scores_that_mean_nothing_are_an_error_of_that_sample_alone(whole):
    net, bad = network(), Images().images[7].sum()

    def model(x):
        sums = x.sum((1, 2, 3), keepdim=True).flatten(1)
        return torch.where((sums - bad).abs() < 1e-4, torch.nan, net(x))

    frame = evaluate(model, Images(), part_size=PART)
    assert frame["error"].dropna().index.tolist() == [7]
    assert np.isnan(frame.loc[7, "distance"])
    np.testing.assert_allclose(frame["distance"].drop(index=7), whole["distance"].drop(index=7), rtol=1e-4)


def test_every_sample_failing_is_still_a_table(tmp_path):
    def model(x):
        return network()(x) * torch.nan

    frame = evaluate(model, Images(), out=tmp_path, part_size=PART)
    assert len(frame) == N
    assert frame["error"].notna().all()
    assert read_run(tmp_path).gallery == {}


def test_a_subset_is_drawn_by_the_seed(whole):
    a, b = (evaluate(network(), Images(), subset=9, seed=seed, part_size=9) for seed in (1, 2))
    assert len(a) == len(b) == 9
    assert a["sample"].is_monotonic_increasing
    assert a["sample"].tolist() != b["sample"].tolist()
    np.testing.assert_allclose(a["distance"], whole["distance"][a["sample"]], rtol=1e-5)


def test_samples_without_labels_and_a_binary_classifier():
    images = Images().images
    frame = evaluate(lambda x: network()(x)[:, 0], images, part_size=PART)
    assert frame["label"].isna().all()
    assert set(frame["prediction"]) <= {0, 1}
    assert frame["distance"].notna().all()


def test_a_network_of_many_biases_is_measured_without_a_warning(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(72, 6), *(nn.Linear(6, 6) for _ in range(110)), nn.Linear(6, 5)]
    for layer in layers[2:-1]:  # as deep as that is, its gradient has to reach the input
        nn.init.orthogonal_(layer.weight)
    evaluate(nn.Sequential(*layers).eval(), Images(3), out=tmp_path, attacks="gradient")
    assert sum(name.startswith("bias:") for name in read_records(tmp_path)) == 112


def test_the_model_leaves_as_it_came():
    net = nn.Sequential(cnn(), nn.Dropout(0.5)).float().train()
    net[0].eval()
    next(net.parameters()).requires_grad_(False)
    before = snapshot(net)
    data = torch.rand(6, *images().shape[1:])
    evaluate(net, data)
    assert_unchanged(net, before)
    assert [module.training for module in (net, net[0], net[1])] == [True, False, True]


def test_precision_runs_the_model_reduced(whole):
    frame = evaluate(network(), Images(), part_size=PART, precision="bfloat16")
    error = (frame["gap"] / whole["gap"] - 1).abs()
    assert 1e-4 < error.median() < 0.1


def test_a_model_in_double_precision_gets_such_images(whole):
    frame = evaluate(network().double(), Images(), part_size=PART)
    np.testing.assert_allclose(frame["gap"], whole["gap"], rtol=1e-3, atol=1e-5)


def test_out_of_memory_halves_the_batch(whole, monkeypatch):
    sizes, true_measure = [], _measure.measure

    def measure(model, images, config):
        sizes.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return true_measure(model, images, config)

    monkeypatch.setattr(_work, "measure", measure)
    assert_same(evaluate(network(), Images(), part_size=PART), whole)
    assert max(sizes[2:]) <= 4
    with pytest.raises(MemoryError, match="batch_size: 8 samples"):
        evaluate(network(), Images(), part_size=PART, batch_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": 3}, "norm: got 3"),
        ({"precision": "int8"}, "precision: got 'int8'"),
        ({"attacks": "magic"}, "attacks: got 'magic'"),
        ({"attacks": ("ddn",), "norm": np.inf}, "attacks: 'ddn' exists in norm 2, got norm=inf"),
        ({"subset": 24}, "subset: got 24, expected 1 to 23"),
        ({"part_size": 0}, "part_size: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": "large"}, "batch_size: got 'large'"),
        ({"bounds": (0, 0.5)}, "none of its first 16 samples can be used; sample image-0: ValueError: values from"),
    ],
)
def test_arguments_out_of_range_are_named_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(network(), Images(), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_fit_the_images_is_named():
    with pytest.raises(ValueError, match=r"model: raised RuntimeError on images of shape \(2, 6, 6\)"):
        evaluate(nn.Conv2d(3, 4, 3), Images())
    with pytest.raises(TypeError, match=r"model: returned list, .*Logits"):
        evaluate(lambda x: [network()(x)], Images())
    with pytest.raises(ValueError, match="model: returned torch"):
        evaluate(lambda x: network()(x).argmax(1), Images())
    with pytest.raises(TypeError, match="model: got str"):
        evaluate("resnet", Images())


def test_a_label_that_the_model_has_no_class_for_is_named():
    with pytest.raises(ValueError, match=r"sample \d+ \(image-\d+\) has label 4, the model has classes 0 to 2"):
        evaluate(lambda x: network()(x)[:, :3], Images())


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    evaluate(network(), Images(), out=tmp_path, part_size=PART, about={"model": "mine"})
    assert json.loads((tmp_path / "manifest.json").read_text())["config"]["model"] == "mine"
    with pytest.raises(ValueError, match="attacks: fast there, thorough here"):
        evaluate(network(), Images(), out=tmp_path, part_size=PART, about={"model": "mine"}, attacks="thorough")
    changed = network()
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"weights: \w+ there, \w+ here"):
        evaluate(changed, Images(), out=tmp_path, part_size=PART, about={"model": "mine"})


SCRIPT = """
import sys
import torch
from captum_alignment.study.evaluation import _work, evaluate
from tests.study.evaluation.test_evaluate import PART, Images, network
torch.set_num_threads(1)
evaluate(network(), Images(), out=sys.argv[1], part_size=2)
"""


def start(out, processes=1, port=0) -> list[subprocess.Popen]:
    environments = (
        [{}]
        if processes == 1
        else [
            {"RANK": str(r), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            for r in range(processes)
        ]
    )
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        for variables in environments
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_when(condition, workers, *, deadline=120) -> None:
    end = time.monotonic() + deadline
    while not condition() and time.monotonic() < end and all(worker.poll() is None for worker in workers):
        time.sleep(0.002)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    for worker in workers:
        worker.communicate()


def test_two_processes_share_the_parts_and_a_killed_run_continues(tmp_path):
    expected = evaluate(network(), Images(), part_size=2)
    out = tmp_path / "run"
    kill_when(lambda: (out / "parts").is_dir() and any((out / "parts").glob("part-*")), start(out))
    done = {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("part-*")}
    assert done
    workers = start(out, 2, free_port())
    errors = [worker.communicate(timeout=200)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    assert_same(read_records(out), expected)
    assert all((out / "parts" / name).stat().st_mtime_ns == time for name, time in done.items())
    assert gallery_file(out).is_file()


@pytest.mark.slow
def test_a_run_killed_twenty_times_equals_the_uninterrupted_one(tmp_path):
    expected = evaluate(network(), Images(), part_size=2)
    out, random = tmp_path / "run", np.random.default_rng(0)
    kills = 0
    while kills < 20:
        began, wait = time.monotonic(), random.uniform(2.0, 5.0)
        workers = start(out, 2, free_port())
        kill_when(lambda began=began, wait=wait: time.monotonic() - began > wait, workers)
        kills += any(worker.returncode == -signal.SIGKILL for worker in workers)
        if (out / "records.parquet").is_file():  # finished before the signal: lose something
            for path in (out / "records.parquet", *random.choice(sorted((out / "parts").glob("part-*")), 6)):
                path.unlink(missing_ok=True)
    (worker,) = start(out)
    worker.communicate(timeout=200)
    assert worker.returncode == 0
    assert_same(read_records(out), expected)
    assert not [path for path in out.rglob("*") if path.name.endswith(".unfinished")]


def test_a_first_operation_in_place_changes_neither_the_numbers_nor_the_data():
    class Shifting(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.net, self.in_place = network(), in_place

        def forward(self, x):
            return self.net(x.sub_(0.5).div_(0.25) if self.in_place else (x - 0.5) / 0.25)

    data = list(images(6, torch.float32, channels=2)[:, :, :6, :6].clamp(0, 1))
    before = torch.stack(data)
    found, expected = (evaluate(Shifting(in_place).eval(), data, attacks=["deepfool"]) for in_place in (True, False))
    pd.testing.assert_frame_equal(found, expected)
    assert torch.equal(torch.stack(data), before)


@pytest.mark.filterwarnings("ignore:torch.(ao|quantize):")
def test_a_quantised_network_is_refused_by_that_word():
    net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), {nn.Linear})
    with pytest.raises(ValueError, match="quantised"):
        evaluate(net, list(torch.rand(3, 1, 3, 3)))
