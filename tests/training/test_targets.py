"""Target maps: what they are, that an interruption changes nothing, and how they are read."""

import json
import pickle

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from captum_alignment import training
from captum_alignment.training import SaliencyTargets, permute_maps, saliency_targets, threshold_maps
from tests.nets import assert_unchanged, cnn, images, snapshot

N = 7


def data():
    return TensorDataset(images(N), torch.arange(N) % 5)


def gradient(net, x, y):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net(leaf).gather(1, y[:, None]).sum(), leaf)[0]


def whole(targets):
    return torch.stack([targets[i][2] for i in range(len(targets))])


def test_gradient_maps_are_the_gradients_of_the_true_score(tmp_path):
    net, dataset = cnn(), data()
    net.train()
    before, state = snapshot(net), torch.get_rng_state()
    targets = saliency_targets(net, dataset, tmp_path / "maps", method="gradient", threshold=None, batch_size=3)
    assert_unchanged(net, before)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(whole(targets), gradient(net.eval(), *dataset.tensors))
    x, y, target = targets[2]
    assert torch.equal(x, dataset[2][0])
    assert y == 2
    assert target.shape == x.shape
    assert len(targets) == N


def test_smoothgrad_is_the_mean_over_clamped_noisy_copies_and_the_image(tmp_path):
    net, dataset, n = cnn(), data(), 400
    x, y = dataset.tensors
    found = whole(saliency_targets(net, dataset, tmp_path, samples=n, sigma=0.4, threshold=None))
    noisy = [gradient(net, (x + 0.4 * torch.randn_like(x)).clamp(0, 1), y) for _ in range(n)]
    expected = (sum(noisy) + gradient(net, x, y)) / (n + 1)
    deviation = torch.stack(noisy).std(0) / n**0.5
    assert ((found - expected).abs() / (deviation + 1e-12)).median() < 2
    assert (found - expected).norm() < 0.2 * expected.norm()
    # Without noise every copy is the image itself.
    still = whole(saliency_targets(net, dataset, tmp_path / "still", samples=3, sigma=0.0, threshold=None))
    torch.testing.assert_close(still, gradient(net, x, y))


class Stop(Exception):
    pass


def test_an_interrupted_run_is_continued_to_the_same_maps(tmp_path):
    net, dataset = cnn(), data()
    expected = whole(saliency_targets(net, dataset, tmp_path / "whole", samples=4, batch_size=2))
    calls = []

    class Interrupted(TensorDataset):
        def __getitem__(self, index):
            calls.append(index)
            if len(calls) == 6:
                raise Stop
            return super().__getitem__(index)

    broken = Interrupted(*dataset.tensors)
    with pytest.raises(Stop):
        saliency_targets(net, broken, tmp_path / "parts", samples=4, batch_size=2)
    with pytest.raises(FileNotFoundError, match="holds no finished maps"):
        SaliencyTargets(dataset, tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "manifest.json").read_text())["done"] == 4
    targets = saliency_targets(net, broken, tmp_path / "parts", samples=4, batch_size=2)
    assert calls == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    torch.testing.assert_close(whole(targets), expected, rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["manifest.json", "maps.npy"]
    calls.clear()
    saliency_targets(net, broken, tmp_path / "parts", samples=4, batch_size=2)
    assert calls == []


def test_other_options_models_and_folders_are_refused(tmp_path):
    net, dataset = cnn(), data()
    saliency_targets(net, dataset, tmp_path / "maps", samples=2)
    with pytest.raises(ValueError, match=r"holds maps of other options \(samples: 2 there, 3 here\)"):
        saliency_targets(net, dataset, tmp_path / "maps", samples=3)
    with pytest.raises(ValueError, match=r"other options \(model:"):
        saliency_targets(cnn(), dataset, tmp_path / "maps", samples=2)
    with pytest.raises(ValueError, match="seed:"):
        saliency_targets(net, dataset, tmp_path / "maps", samples=2, generator=torch.Generator().manual_seed(1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty and holds no maps"):
        saliency_targets(net, dataset, tmp_path / "other")
    with pytest.raises(ValueError, match=r"dataset: got 3 samples, but .* holds maps of 7"):
        SaliencyTargets(TensorDataset(*(t[:3] for t in dataset.tensors)), tmp_path / "maps")


def test_thresholds_keep_what_lies_outside_the_mean_and_deviation(tmp_path):
    maps = torch.tensor([[[0.0, 1.0, 2.0, 13.0]], [[5.0, 5.0, 5.0, 5.0]]])
    expected = torch.tensor([[[0.0, 0.0, 0.0, 13.0]], [[0.0, 0.0, 0.0, 0.0]]])  # mean 4, deviation 5.2
    assert torch.equal(threshold_maps(maps, 1.0), expected)
    net, dataset = cnn(), data()
    full = whole(saliency_targets(net, dataset, tmp_path, method="gradient", threshold=None))
    kept = whole(saliency_targets(net, dataset, tmp_path, method="gradient", threshold=1.25))
    assert torch.equal(kept, threshold_maps(full, 1.25))
    assert 0 < (kept != 0).float().mean() < 0.5


def test_permuted_maps_keep_their_values(tmp_path):
    maps = torch.rand(3, 2, 50)
    some, all_ = permute_maps(maps, 0.5), permute_maps(maps, 1.0)
    for permuted in (some, all_):
        assert torch.equal(permuted.flatten(1).sort(1).values, maps.flatten(1).sort(1).values)
    assert 0.4 < (some == maps).float().mean() < 0.6
    assert (all_ == maps).float().mean() < 0.1
    assert torch.equal(permute_maps(maps, 0.0), maps)
    with pytest.raises(ValueError, match=r"fraction: got 1.5"):
        permute_maps(maps, 1.5)
    saliency_targets(cnn(), data(), tmp_path, method="gradient")
    targets = SaliencyTargets(data(), tmp_path, permuted=1.0)
    assert torch.equal(targets[3][2], targets[3][2])
    original, permuted = SaliencyTargets(data(), tmp_path)[3][2], targets[3][2]
    assert torch.equal(permuted.flatten().sort().values, original.flatten().sort().values)
    assert not torch.equal(permuted, original)


def test_augmentation_moves_image_and_map_together(tmp_path):
    net, dataset = cnn(), data()
    plain = saliency_targets(net, dataset, tmp_path, method="gradient")
    transform = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Normalize([0.5, 0.5], [0.1, 0.1])])
    flipped = SaliencyTargets(dataset, tmp_path, transform=transform)
    for (x, _, target), (moved, _, moved_target) in ((plain[i], flipped[i]) for i in range(N)):
        torch.testing.assert_close(moved, (x.flip(-1) - 0.5) / 0.1)
        assert torch.equal(moved_target, target.flip(-1))
        assert type(moved) is type(moved_target) is torch.Tensor
    torch.manual_seed(1)
    crops = SaliencyTargets(dataset, tmp_path, transform=v2.RandomCrop(5))
    assert crops[0][0].shape == crops[0][2].shape == (2, 5, 5)


def test_workers_and_pickles_read_the_same_maps(tmp_path):
    targets = saliency_targets(cnn(), data(), tmp_path, method="gradient", threshold=None)
    expected = whole(targets)
    copied = pickle.dumps(targets)
    assert len(copied) < 40_000
    torch.testing.assert_close(whole(pickle.loads(copied)), expected)
    regularizer, net = training.InterpretationRegularizer(1.0, 0.1), cnn()
    for x, y, maps in DataLoader(targets, batch_size=4, num_workers=1):
        regularizer(net, x, y, maps).backward()
    assert all(p.grad is not None for p in net[0].parameters())


def test_any_attribution_and_a_progress_bar(tmp_path, capsys):
    def double(x, y):
        return 2 * x

    dataset = data()
    targets = saliency_targets(cnn(), dataset, tmp_path, method=double, threshold=None, show_progress=True)
    torch.testing.assert_close(whole(targets), 2 * dataset.tensors[0])
    assert "maps: 100%" in capsys.readouterr().err
    assert "double" in json.loads((tmp_path / "manifest.json").read_text())["options"]["method"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "ig"}, "method: got 'ig', expected 'smoothgrad', 'gradient' or a function"),
        ({"samples": 0}, "samples: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"sigma": -1.0}, "sigma: got -1.0"),
        ({"method": lambda x, y: x[:, 0]}, r"method: returned maps of shape \(7, 8, 8\), expected \(7, 2, 8, 8\)"),
        ({"method": lambda x, y: x * torch.nan}, "maps: NaN"),
        ({"dataset": TensorDataset(images(0), torch.zeros(0))}, "dataset: got no samples"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        saliency_targets(**({"model": cnn(), "dataset": data(), "folder": tmp_path} | change))
