import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

from captum_alignment.study.load import as_split, resolve_methods
from captum_alignment.study.roar._maps import keep_maps, read_maps
from tests.study.roar.known import CLASSES, SIZE, TEST

SPLIT = as_split(TEST, "test", (0, 1))
torch.manual_seed(0)
NET = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (SIZE - 2) ** 2, CLASSES)).eval()


class NoBar:
    n = 0

    def update(self, count):
        self.n += count


def kept(name, folder, per="pixel", method=None):
    (function,) = resolve_methods({name: name if method is None else method}, NET, (0, 1)).values()
    bar = NoBar()
    keep_maps(NET, name, function, SPLIT, folder, per=per, bar=bar)
    assert bar.n == len(SPLIT)
    return read_maps(SPLIT, folder, 0, len(SPLIT))


def test_maps_are_those_of_captum_for_the_predicted_class(tmp_path):
    predicted = NET(SPLIT.images).argmax(1)
    assert (predicted != SPLIT.labels).any()
    images = SPLIT.images.clone().requires_grad_()
    expected = Saliency(NET).attribute(images, target=predicted, abs=False)
    torch.testing.assert_close(kept("saliency", tmp_path / "s"), expected)
    expected = InputXGradient(NET).attribute(images, target=predicted).detach()
    torch.testing.assert_close(kept("input-x-gradient", tmp_path / "x"), expected)
    torch.testing.assert_close(kept("mine", tmp_path / "m", method=InputXGradient(NET)), expected)


def test_one_channel_stands_for_all_per_pixel_alone(tmp_path):
    images = torch.rand(6, 3, SIZE, SIZE)
    split = as_split([(image, 0) for image in images], "test", (0, 1))
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES))

    def first(x, targets):
        return x[:, :1]

    keep_maps(net, "first", first, split, tmp_path / "pixel", per="pixel", bar=NoBar())
    torch.testing.assert_close(read_maps(split, tmp_path / "pixel", 0, 9), images[:, :1].expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match=r"methods: first: method: returned maps of shape \(6, 1, 8, 8\)"):
        keep_maps(net, "first", first, split, tmp_path / "value", per="value", bar=NoBar())
