import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from captum_alignment.study.load._samples import Samples
from captum_alignment.study.load._sources import Arrays, Files, Fitted, channels_first


def test_arrays():
    images = torch.rand(3, 1, 2, 2)
    labelled = Arrays(images, torch.tensor([2, 0, 1]), ids=["a", "b", "c"], classes=["x", "y", "z"])
    image, label = labelled[0]
    assert torch.equal(image, images[0])
    assert (label, type(label)) == (2, int)
    assert (labelled.ids, labelled.classes, len(labelled)) == (["a", "b", "c"], ("x", "y", "z"), 3)
    bare = Arrays(images, None)
    assert torch.equal(bare[1], images[1])
    assert (bare.ids, bare.classes) == (["0", "1", "2"], None)


def test_files_are_read_when_they_are_asked_for(tmp_path):
    Image.new("L", (5, 4), 7).save(tmp_path / "grey.png")
    (tmp_path / "empty.png").touch()
    files = Files(tmp_path, ["grey.png", "empty.png", "absent.png"], None)
    assert (files[0].mode, files[0].size, files[0].getpixel((0, 0))) == ("RGB", (5, 4), (7, 7, 7))
    for broken in (1, 2):
        with pytest.raises(OSError, match=r"cannot identify image file|No such file"):
            files[broken]
    assert Files(tmp_path, ["grey.png"], [3])[0][1] == 3


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
    assert (fitted.ids, fitted.classes) == (["a", "b"], tuple("abcdef"))  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(Fitted([1, 2], crop=4), "ids")


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


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 8, 1), (5, 1, 8, 8), (5, 8, 8, 3), (5, 3, 8, 8), (5, 3, 8, 6)])
def test_channels_first(shape):
    images = np.random.default_rng(0).random(shape)
    result = channels_first(images, "images")
    assert result.shape[:2] == (5, 3 if 3 in shape else 1)
    assert np.array_equal(np.sort(result, None), np.sort(images, None))
    if shape[-1] in (1, 3):
        assert np.array_equal(result[2, :, 4, 5], images[2, 4, 5])


@pytest.mark.parametrize(("shape", "end"), [((5,), ""), ((5, 8, 8, 4), ""), ((5, 3, 8, 3), ", one of them only")])
def test_layouts_that_are_unclear(shape, end):
    with pytest.raises(ValueError, match=f"--data: images of a: shape .*, expected .* with C 1 or 3{end}$"):
        channels_first(np.zeros(shape), "images of a")


def test_images_of_every_mode_keep_their_values(tmp_path):
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    images = {
        "16.png": Image.fromarray((ramp * 65535).astype(np.uint16)),
        "f.tif": Image.fromarray(ramp.astype(np.float32)),
        "p.png": Image.fromarray((ramp * 255).astype(np.uint8)).convert("P"),
        "1.png": Image.fromarray(ramp > 0.5),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    samples = Samples(Files(tmp_path, list(images), None))
    for sample, expected in zip((samples[i] for i in range(4)), (ramp, ramp, ramp, ramp > 0.5), strict=True):
        assert sample.image is not None, sample.error
        assert sample.image.shape == (3, 8, 8)
        np.testing.assert_allclose(sample.image, np.broadcast_to(expected, (3, 8, 8)), atol=1 / 255)


def test_values_whose_range_is_unknown_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 700, np.int32)).save(tmp_path / "i.tif")
    samples = Samples(Files(tmp_path, ["f.tif", "i.tif"], None))
    assert "values from 200 to 200" in str(samples[0].error)
    assert "integers of 32 bits, expected 8 or 16 bits" in str(samples[1].error)
