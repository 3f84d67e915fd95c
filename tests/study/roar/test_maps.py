import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, Saliency
from scipy import ndimage
from torch import nn

from captum_alignment.study.load import BUILT_IN, as_split, resolve_methods
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


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_method_has_reproducible_maps_that_differ_from_image_to_image(name, tmp_path):
    a, b = kept(name, tmp_path / "a"), kept(name, tmp_path / "b")
    assert a.shape == SPLIT.images.shape
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


def test_maps_are_those_of_captum_for_the_predicted_class(tmp_path):
    predicted = NET(SPLIT.images).argmax(1)
    assert (predicted != SPLIT.labels).any()
    images = SPLIT.images.clone().requires_grad_()
    expected = Saliency(NET).attribute(images, target=predicted, abs=False)
    torch.testing.assert_close(kept("saliency", tmp_path / "s"), expected)
    expected = InputXGradient(NET).attribute(images, target=predicted).detach()
    torch.testing.assert_close(kept("input-x-gradient", tmp_path / "x"), expected)
    torch.testing.assert_close(kept("mine", tmp_path / "m", method=InputXGradient(NET)), expected)


def test_smoothgrad_of_a_linear_network_is_its_saliency(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, CLASSES))
    found = resolve_methods(("smoothgrad", "saliency", "integrated-gradients"), net, (0, 1))
    images, targets = SPLIT.images[:5].clone().requires_grad_(), SPLIT.labels[:5]
    torch.testing.assert_close(found["smoothgrad"](images, targets), found["saliency"](images, targets))
    expected = images.detach() * found["saliency"](images, targets)
    torch.testing.assert_close(found["integrated-gradients"](images, targets).float(), expected)


def test_sobel_is_that_of_scipy():
    images = torch.rand(3, 2, 7, 6, dtype=torch.float64)
    channels = images.numpy().reshape(-1, 7, 6)
    expected = [np.hypot(*(ndimage.sobel(c, axis=axis, mode="nearest") for axis in (0, 1))) for c in channels]
    torch.testing.assert_close(
        BUILT_IN["sobel"](None, (0, 1))(images, torch.zeros(3)), torch.from_numpy(np.stack(expected)).view_as(images)
    )


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
