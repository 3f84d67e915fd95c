"""Attributions side by side: each number is the library's or Captum's own."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, LayerAttribution, LayerGradCam, Saliency
from captum.metrics import sensitivity_max
from torch import nn

from captum_alignment.metrics import (
    alignment_null,
    deletion_curve,
    pointing_game,
    rank_correlation,
    relevance_mass_accuracy,
)
from captum_alignment.study.evaluation import evaluate, read_records, read_run
from tests.study.evaluation.test_evaluate import Images, network

N = 12
NAMES = ("saliency", "integrated-gradients", "gradcam")


def run(attributions, model=None, **options):
    data = Images(N) if model is None else Images(N).images
    net = network() if model is None else model
    return evaluate(net, data, attacks="deepfool", attributions=attributions, **options)


@pytest.fixture(scope="module")
def found():
    return run(NAMES)


def expected_maps(net, x, targets):
    last: Any = LayerGradCam(net, net[0]).attribute(x, target=targets, relu_attributions=True)
    x = x.clone().requires_grad_()
    return {
        "saliency": Saliency(net).attribute(x, target=targets, abs=False),
        "integrated-gradients": IntegratedGradients(net).attribute(x, target=targets, n_steps=32).float(),
        "gradcam": LayerAttribution.interpolate(last, (6, 6), "bilinear").expand_as(x),
    }


def test_the_numbers_are_those_of_the_library(found):
    net, x = network(), Images(N).images
    targets = net(x).argmax(1)
    maps = {name: map_.detach() for name, map_ in expected_maps(net, x, targets).items()}
    for name, own in maps.items():
        chance = alignment_null(x, own)
        area = deletion_curve(net, x, own, targets, baselines=x.mean((0, 2, 3)), absolute=True).area
        expected = {quantity: getattr(chance, quantity) for quantity in ("alignment", "null", "excess", "rank")}
        for column, values in {**expected, "deletion": area}.items():
            np.testing.assert_allclose(found[f"{column}:{name}"], values, rtol=1e-4, atol=1e-5, err_msg=column)
        assert (found[f"seconds:{name}"] > 0).all()
        assert found[f"failed:{name}"].isna().all()
        assert found[f"randomized:{name}"].between(-1, 0.999).all()
    agreement = rank_correlation(maps["saliency"], maps["gradcam"])
    np.testing.assert_allclose(found["agreement:saliency & gradcam"], agreement, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["alignment:saliency"], found["alignment"], rtol=1e-4)
    draws = [torch.rand((4, 2, 6, 6), generator=torch.Generator().manual_seed(index))[1:] for index in range(N)]

    def perturb(images: Any) -> Any:  # every image three times, one after the other
        return (images + 0.02 * (2 * torch.cat(draws) - 1),)

    def explain(inputs: Any, target: Any) -> Any:
        return (Saliency(net).attribute(inputs[0].clone().requires_grad_(), target=target, abs=False),)

    change = sensitivity_max(  # pyright: ignore[reportArgumentType] - a tuple of one tensor is one
        explain, (x,), perturb, n_perturb_samples=3, max_examples_per_batch=36, target=targets
    )
    assert change.max() > 0  # of a piecewise linear network, where a kink is near
    np.testing.assert_allclose(found["sensitivity:saliency"], change, rtol=1e-3, atol=1e-4)


def test_nothing_depends_on_the_parts(found, tmp_path):
    forms = (
        {"part_size": 5},
        {"part_size": 1, "batch_size": 4},
        {"subset": 12, "out": tmp_path / "run", "part_size": 7},
    )
    for options in forms:
        again = run(NAMES, **options)
        measured = [name for name in found if ":" in str(name) and not str(name).startswith(("seconds", "failed"))]
        assert "null:gradcam" in measured
        pd.testing.assert_frame_equal(again.filter(measured), found.filter(measured), rtol=1e-3, atol=1e-4)


def test_the_gallery_has_the_maps_and_makes_missing_ones_again(tmp_path):
    net, out = network(), tmp_path / "run"
    run(NAMES, out=out, part_size=5)
    gallery = read_run(out).gallery
    x = torch.from_numpy(gallery["image"])
    expected = Saliency(net).attribute(x.requires_grad_(), target=net(x).argmax(1), abs=False)
    np.testing.assert_allclose(gallery["attribution:saliency"], expected, rtol=1e-4, atol=1e-6)
    assert [name for name in gallery if name.startswith("attribution:")] == [f"attribution:{name}" for name in NAMES]
    (out / "gallery.npz").unlink()
    run(NAMES, out=out, part_size=5)
    again = read_run(out).gallery
    for name in NAMES:
        np.testing.assert_allclose(again[f"attribution:{name}"], gallery[f"attribution:{name}"], rtol=1e-3, atol=1e-4)


def test_maps_are_compared_with_masks(found):
    masks: Any = torch.rand(N, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.3
    masks = [*masks[:-1], None]
    frame = run(NAMES, masks=masks, part_size=5)
    net, x = network(), Images(N).images
    maps = expected_maps(net, x, net(x).argmax(1))["integrated-gradients"].detach()
    inside = torch.stack(masks[:-1])
    expected = {
        "mask": inside.double().mean((1, 2)),
        "mass:integrated-gradients": relevance_mass_accuracy(maps[:-1], inside),
        "pointing:integrated-gradients": pointing_game(maps[:-1], inside),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(frame[name][:-1], values, rtol=1e-3, err_msg=name)
        assert np.isnan(frame[name].iloc[-1])
    pd.testing.assert_series_equal(frame["alignment:gradcam"], found["alignment:gradcam"], rtol=1e-4)
    with pytest.raises(ValueError, match="masks: got some without attributions"):
        run(None, masks=masks)
    with pytest.raises(ValueError, match=r"masks: that of sample 4 has shape \(5, 6\), expected \(6, 6\)"):
        run(NAMES[:1], masks=[*masks[:4], masks[4][1:], *masks[5:]])


def test_the_stability_does_not_depend_on_the_size_of_a_batch(found):
    small = run("saliency", batch_size=5)
    np.testing.assert_allclose(small["sensitivity:saliency"], found["sensitivity:saliency"], rtol=1e-3, atol=1e-4)


class Small(nn.Module):
    """A network on an accelerator that holds the graphs, or the scores, of so many samples."""

    def __init__(self, graphs: int, scores: int) -> None:
        super().__init__()
        self.net, self.most = network(), {True: graphs, False: scores}
        self.refused: list[int] = []

    def forward(self, x):
        if len(x) > self.most[torch.is_grad_enabled()]:
            self.refused.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.net(x)


@pytest.mark.parametrize("most", [(3, 100), (100, 3), (1, 1)])
def test_what_does_not_fit_into_memory_is_measured_in_smaller_batches(most):
    names, large = {"saliency": "saliency", "flat": lambda m, x, t: x[:, :1] * 0}, Small(100, 100)
    data, options = list(Images(N).images), {"attacks": "gradient", "attributions": names}
    expected, small = evaluate(large, data, **options), Small(*most)
    assert not large.refused
    found = evaluate(small, data, **options)
    assert small.refused
    assert found["failed:saliency"].isna().all()
    measured = [name for name in expected if ":" in str(name) and not str(name).startswith(("seconds", "failed"))]
    pd.testing.assert_frame_equal(found.filter(measured), expected.filter(measured), rtol=1e-3, atol=1e-4)
    assert found["sensitivity:saliency"].notna().all()
    assert found["randomized:saliency"].notna().all()


def test_no_number_is_lost_where_only_a_later_step_does_not_fit(found):
    net, images, refused = network(), Images(N).images, []

    def hungry(model, x, targets):
        perturbed = not (x[0] == images).flatten(1).all(1).any()
        step, most = ("randomized", 6) if model is not net else ("sensitivity", 3) if perturbed else ("maps", N)
        if len(x) > most:
            refused.append(step)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Saliency(model).attribute(x, target=targets, abs=False)

    frame = run({"saliency": hungry}, net)
    assert refused == ["randomized", "sensitivity"]
    for name in ("alignment", "deletion", "randomized", "sensitivity"):
        np.testing.assert_allclose(frame[f"{name}:saliency"], found[f"{name}:saliency"], rtol=1e-3, atol=1e-4)


def test_a_flat_map_ranks_as_chance_does_whatever_the_part():
    frame = run({"flat": lambda model, x, targets: x * 0}, part_size=5, batch_size=2)
    np.testing.assert_allclose(frame["deletion:flat"], frame["deletion:random"], rtol=1e-5)


def test_a_random_ranking_stands_beside(found):
    assert found["deletion:random"].between(0, 1).all()
    assert found["deletion:integrated-gradients"].mean() < found["deletion:random"].mean()


def test_every_form_of_an_attribution(tmp_path):
    net = network()
    (tmp_path / "own.py").write_text(
        "from captum.attr import Saliency\n"
        "def mine(model, images, targets):\n    return Saliency(model).attribute(images, target=targets, abs=False)\n"
    )
    forms = {
        "name": "input-x-gradient",
        "class": InputXGradient,
        "attribution": InputXGradient(net),
        "function": lambda model, x, t: InputXGradient(model).attribute(x, target=t),
        "of images": lambda x, t: InputXGradient(net).attribute(x, target=t),
    }
    frame = run(forms, net)
    for name in forms:
        np.testing.assert_allclose(frame[f"alignment:{name}"], frame["alignment:name"], rtol=1e-5)
        assert frame[f"randomized:{name}"].isna().all() == (name in ("attribution", "of images"))
    frame = run((f"{tmp_path}/own.py:mine", "captum.attr:DeepLift"))
    np.testing.assert_allclose(frame["alignment:mine"], frame["alignment"], rtol=1e-4)
    assert DeepLift.__name__ in str(list(frame))


def test_a_map_that_fails_is_recorded_and_the_rest_goes_on(found, tmp_path):
    bad = Images(N).images[[3, 7]].sum((1, 2, 3))

    def fragile(model, x, targets):
        sums = x.sum((1, 2, 3))
        if (sums - bad[0]).abs().min() < 1e-5:
            raise RuntimeError("no map for this one")
        maps = Saliency(model).attribute(x, target=targets, abs=False)
        maps[(sums - bad[1]).abs() < 1e-5] = torch.nan
        return maps

    run({"fragile": fragile, "saliency": "saliency"}, out=tmp_path / "run", part_size=5, batch_size=2)
    frame = read_records(tmp_path / "run")
    assert frame["failed:fragile"].dropna().to_dict() == {
        3: "RuntimeError: no map for this one",
        7: "the map is not finite",
    }
    kept = frame["failed:fragile"].isna()
    assert frame.loc[~kept, ["alignment:fragile", "deletion:fragile", "seconds:fragile"]].isna().all(axis=None)
    np.testing.assert_allclose(frame["alignment:fragile"][kept], found["alignment:saliency"][kept], rtol=1e-4)
    np.testing.assert_allclose(frame["alignment:saliency"], found["alignment:saliency"], rtol=1e-4)
    assert frame["error"].isna().all()


@pytest.mark.parametrize(
    ("attribution", "message"),
    [
        (lambda m, x, t: x[:, :, 1:], r"attributions: mine returned \(12, 2, 5, 6\), expected \(12, 2, 6, 6\)"),
        (lambda m, x, t: (x, x), "attributions: mine returned tuple"),
        (lambda m, x, t: x[:5], r"mine returned \(5, 2, 6, 6\)"),
        ("salience", "got 'salience', expected some of .*; did you mean saliency"),
        ("nowhere.py:mine", "no file nowhere.py"),
        (3, "'mine' is of type int, expected a"),
    ],
)
def test_what_is_no_attribution_is_refused(attribution, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        run({"mine": attribution})


def test_gradcam_needs_a_convolution():
    with pytest.raises(ValueError, match="gradcam needs a model with a convolution"):
        run(("gradcam",), nn.Sequential(nn.Flatten(), nn.Linear(72, 3)))


def test_a_binary_classifier_and_a_function():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 32), nn.ReLU(), nn.Linear(32, 1)).eval()
    with torch.no_grad():
        net[3].weight.mul_(20)  # pyright: ignore
    frame = run(("saliency", "input-x-gradient"), net)
    assert frame["failed:saliency"].isna().all()
    assert frame["alignment:saliency"].notna().all()
    frame = run(("saliency",), lambda x: net(x)[:, 0])
    assert frame["alignment:saliency"].notna().all()
    assert frame["randomized:saliency"].isna().all()
