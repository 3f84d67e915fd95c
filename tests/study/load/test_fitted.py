import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from captum_alignment.study.load._fitted import Fitted, Size
from captum_alignment.study.load._sources import Arrays


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW", "PIL", "tensor", "tensor HW"])
def test_every_kind_of_image_is_resized_and_cropped(layout):
    grid = np.arange(60 * 80, dtype=np.float32).reshape(60, 80) / 4800
    image = {
        "HW": grid,
        "HWC": grid[..., None],
        "CHW": grid[None],
        "PIL": Image.fromarray((grid * 255).astype(np.uint8)),
        "tensor": torch.from_numpy(grid)[None],
        "tensor HW": torch.from_numpy(grid),
    }[layout]
    expected = transforms.center_crop(transforms.resize(torch.from_numpy(grid)[None], [30]), [20])
    for source in ([(image, 1)], [image]):
        sample = Fitted(source, resize=30, crop=20)[0]
        fitted = sample[0] if isinstance(sample, tuple) else sample
        if layout == "PIL":
            fitted = transforms.pil_to_tensor(fitted) / 255
        torch.testing.assert_close(fitted, expected, atol=1e-6 if layout != "PIL" else 5e-3, rtol=0)


def test_the_rest_of_a_sample_stays():
    source = Arrays(torch.rand(2, 3, 8, 8), torch.tensor([4, 5]), ids=["a", "b"], classes="abcdef")
    fitted = Fitted(source, crop=4)
    assert fitted[1][0].shape == (3, 4, 4)
    assert (fitted[1][1], len(fitted)) == (5, 2)
    assert (fitted.ids, fitted.classes) == (["a", "b"], tuple("abcdef"))
    assert Fitted([1, 2, 3], crop=4).ids is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"resize": 0}, "--resize: got 0, expected at least 1 pixel"),
        ({"crop": -1}, "--crop: got -1, expected at least 1 pixel"),
        ({"resize": 4, "crop": 5}, "--crop: got 5, expected at most 4, the shorter side after --resize"),
    ],
)
def test_sizes_that_are_wrong(sizes, message):
    with pytest.raises(ValueError, match=message):
        Fitted([], **sizes)


def test_an_image_that_is_too_small_is_not_padded():
    with pytest.raises(ValueError, match="--crop: got 9, but the image has 8 x 10 pixels; --resize enlarges it"):
        Fitted([torch.rand(3, 8, 10)], crop=9)[0]


NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", [Image.fromarray, lambda array: torch.from_numpy(array).permute(2, 0, 1) / 255])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_interpolation_is_torchvisions(interpolation, kind):
    mode = InterpolationMode(interpolation)
    official = ImageClassification(crop_size=20, resize_size=24, mean=(0.0,), std=(1.0,), interpolation=mode)
    image = kind(NOISE)
    for fitted in (Fitted([image], Size(24, interpolation), 20), Fitted([image], 24, 20, interpolation)):
        found = fitted[0]
        found = transforms.pil_to_tensor(found) / 255 if isinstance(found, Image.Image) else found
        torch.testing.assert_close(found, official(image), atol=1e-6, rtol=0)


def test_a_size_is_a_number_that_remembers():
    size = Size(24, "bicubic", squash=True)
    copy = pickle.loads(pickle.dumps(size))
    assert size == copy == 24
    assert (copy.interpolation, copy.squash) == ("bicubic", True)
    assert Fitted([Image.fromarray(NOISE)], size)[0].size == (24, 24)
    given = Fitted([], size, interpolation="nearest").resize
    assert given is not None
    assert (given.interpolation, given.squash) == ("nearest", True)
    with pytest.raises(ValueError, match="--interpolation: got 'cubic', expected nearest, bilinear, bicubic"):
        Fitted([], 24, interpolation="cubic")
