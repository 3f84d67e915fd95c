import numpy as np
import pytest
import torch
from PIL import Image

from captum_alignment.study.load._samples import Samples
from captum_alignment.study.load._sources import Arrays, Files, channels_first


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


def test_the_orientation_that_exif_has_is_left_alone_as_in_torchvision(tmp_path):
    from torchvision.datasets.folder import default_loader

    image, exif = Image.new("RGB", (6, 4), (200, 0, 0)), Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    opened = Files(tmp_path, ["a.jpg"], None)[0]
    assert opened.size == (6, 4)
    assert opened.tobytes() == default_loader(str(tmp_path / "a.jpg")).tobytes()
