"""The deletion curve against removal and softmax by hand, and on a set whose informative pixels are known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment.metrics import deletion_curve, remove_features
from tests.nets import TwoInputs, assert_unchanged, cnn, images, snapshot, two_inputs


class Known(nn.Module):
    """Scores that only the four pixels in the middle of an image decide; the class is their sign."""

    def forward(self, x):
        evidence = x[:, 0, 3:5, 3:5].mean((1, 2))
        return torch.stack([evidence, -evidence], 1)


def informative(n=60):
    x = 0.3 * torch.randn(n, 1, 8, 8)
    x[:, :, 3:5, 3:5] = torch.where(torch.rand(n, 1, 1, 1) < 0.5, -1.0, 1.0)
    truth = torch.zeros_like(x)
    truth[:, :, 3:5, 3:5] = 1
    return x, truth + 1e-3 * torch.rand_like(x)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("of", ["probability", "score"])
def test_is_removal_and_a_forward_pass_per_fraction(keep, of):
    net, x, a = cnn(), images(), torch.randn(8, 2, 8, 8, dtype=torch.float64)
    target, options = torch.arange(8) % 5, {"baselines": [0.4, 0.6], "per": "value", "absolute": True}
    curve = deletion_curve(net, x, a, target, fractions=(0.2, 0.7), keep=keep, of=of, **options)
    points = [remove_features(x, a, f, keep=keep, **options) for f in (0.2, 0.7)]
    points = [*points, x] if keep else [x, *points]
    with torch.no_grad():
        scores = [net(p).softmax(1) if of == "probability" else net(p) for p in points]
    expected = torch.stack([s[torch.arange(8), target] for s in scores], 1)
    torch.testing.assert_close(curve.value, expected)
    fraction = [0.2, 0.7, 1.0] if keep else [0.0, 0.2, 0.7]
    torch.testing.assert_close(curve.fraction, torch.tensor(fraction, dtype=torch.float64))
    heights, widths = (expected[:, 1:] + expected[:, :-1]) / 2, torch.tensor([0.5, 0.3] if keep else [0.2, 0.5])
    torch.testing.assert_close(curve.area, (heights * widths).sum(1) / widths.sum())


def test_a_perfect_attribution_falls_faster_than_chance_and_a_reversed_one_slower():
    x, truth = informative()
    areas = {}
    for keep in (False, True):
        for name, a in {"perfect": truth, "random": torch.rand_like(x), "reversed": -truth}.items():
            areas[name, keep] = deletion_curve(Known(), x, a, baselines=0, keep=keep).area.mean()
    assert areas["perfect", False] + 0.05 < areas["random", False] < areas["reversed", False] - 0.05
    assert areas["perfect", True] - 0.05 > areas["random", True] > areas["reversed", True] + 0.05


def test_the_ends_of_the_curve_are_known():
    x, truth = informative()
    curve = deletion_curve(Known(), x, truth, baselines=0, fractions=(4 / 64, 0.5))
    torch.testing.assert_close(curve.value[:, 0], Known()(x).softmax(1).max(1).values)
    torch.testing.assert_close(curve.value[:, 1:], torch.full((60, 2), 0.5))  # without the four pixels: no idea
    assert torch.equal(curve.target, Known()(x).argmax(1))


def test_constant_maps_lose_nested_features():
    seen = []

    def scores(x):
        if len(x) == 5:  # the check of single samples apart
            seen.append(x == 0)
        return torch.stack([x.sum(1), -x.sum(1)], 1)

    deletion_curve(scores, torch.ones(5, 20), torch.ones(5, 20), baselines=0, fractions=(0.3, 0.6))
    assert [int(gone.sum()) for gone in seen] == [0, 30, 60]
    assert (seen[2] | ~seen[1]).all()


def test_batches_tuples_and_extra_arguments():
    net, x = TwoInputs(), two_inputs()
    a = tuple(torch.randn_like(t) for t in x)
    extra, target = (torch.randn(7, dtype=torch.float64), 2.0), torch.arange(7) % 3
    whole = deletion_curve(net, x, a, target, extra, baselines=0.0)
    parts = deletion_curve(net, x, a, target, extra, baselines=0.0, internal_batch_size=2)
    torch.testing.assert_close(parts.value, whole.value)
    assert torch.equal(parts.target, target)


def test_a_baseline_per_channel_is_not_cut_with_the_samples():
    net, x = cnn(), images(2)  # as many samples as channels
    a, baseline = torch.randn_like(x), torch.tensor([[[0.2]], [[0.9]]])
    whole = deletion_curve(net, x, a, baselines=baseline)
    torch.testing.assert_close(deletion_curve(net, x, a, baselines=baseline, internal_batch_size=1).value, whole.value)


def test_leaves_the_model_and_reports():
    net, x = cnn().float(), images(dtype=torch.float32)
    before = snapshot(net)
    curve = deletion_curve(net, x, torch.randn_like(x), baselines=0, fractions=(0.1, 0.5))
    assert_unchanged(net, before)
    assert not curve.value.requires_grad
    frame = curve.to_dataframe()
    assert list(frame) == ["target", "area", "removed_0", "removed_0.1", "removed_0.5"]
    assert len(frame) == 8
    assert "removed 0.5" in str(curve)


def test_bad_input_is_named():
    net, x = cnn(), images()
    for fractions in ((), (0.5, 0.2), (0.2, 0.2)):
        with pytest.raises(ValueError, match="fractions: got"):
            deletion_curve(net, x, x, baselines=0, fractions=fractions)
    with pytest.raises(ValueError, match=r"fraction: got 1\.0"):
        deletion_curve(net, x, x, baselines=0, fractions=(0.5, 1.0))
    with pytest.raises(ValueError, match="of: got 'loss'"):
        deletion_curve(net, x, x, baselines=0, of="loss")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="target: got class 9"):
        deletion_curve(net, x, x, 9, baselines=0)
    with pytest.raises(ValueError, match="is in training mode"):
        deletion_curve(cnn().train(), x, x, baselines=0)


def test_integer_inputs_are_those_behind_the_embedding():
    embed, head = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()
    tokens, a = torch.randint(1, 9, (5, 7)), torch.randn(5, 7)
    for ids in (tokens, tokens.int()):
        curve = deletion_curve(lambda t: head(embed(t).mean(1)), ids, a, baselines=0, fractions=(0.3, 0.6))
        gone = [remove_features(tokens, a, f, baselines=0) for f in (0.3, 0.6)]
        scores = torch.stack([head(embed(t).mean(1)).softmax(1) for t in (tokens, *gone)], 1)
        torch.testing.assert_close(curve.value, scores[torch.arange(5), :, curve.target].detach())
    net, x = cnn(), torch.randint(0, 256, (4, 2, 8, 8), dtype=torch.uint8)
    found = deletion_curve(lambda t: net(t.double() / 255), x, torch.rand(4, 2, 8, 8).double(), baselines=7)
    assert found.value.isfinite().all()
    with pytest.raises(ValueError, match="two forward passes differ"):
        deletion_curve(lambda t: head(F.dropout(embed(t).mean(1), 0.5)), tokens, a, baselines=0)


def test_a_feature_mask_is_that_of_the_removal():
    net, x = cnn(), images(4)
    a, mask = torch.randn_like(x), torch.randint(0, 6, (4, 2, 8, 8))
    curve = deletion_curve(net, x, a, 1, baselines=0, fractions=(0.3, 0.6), feature_mask=mask, internal_batch_size=3)
    gone = [remove_features(x, a, f, baselines=0, feature_mask=mask) for f in (0.3, 0.6)]
    torch.testing.assert_close(curve.value, torch.stack([net(t).softmax(1)[:, 1] for t in (x, *gone)], 1).detach())
