import numpy as np
import pytest
import torch
from PIL import Image

from captum_alignment.study.load import Masks
from captum_alignment.study.load._fitted import Fitted, Size
from captum_alignment.study.load._sources import Arrays

GRID = np.zeros((12, 8), np.uint8)
GRID[2:7, 1:5] = 3
IDS = ["cats/a.jpg", "dogs/b.jpg", "c"]
IMAGES = Arrays(torch.rand(3, 3, 12, 8), None, ids=IDS)


def save(path, **kinds):
    path.mkdir(parents=True, exist_ok=True)
    for name, image in kinds.items():
        image.save(path / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    palette = Image.fromarray(GRID, mode="P")
    palette.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # all colours black: its numbers count
    save(tmp_path / "cats", a=palette)
    save(tmp_path / "dogs", b=Image.fromarray(np.stack([GRID, 0 * GRID, 0 * GRID, 0 * GRID + 255], -1), mode="RGBA"))
    np.save(tmp_path / "c.npy", GRID > 0)
    (tmp_path / "other.txt").write_text("no mask")
    return tmp_path


def test_a_file_for_every_sample_of_any_lossless_kind(folder):
    masks = Masks(folder, IMAGES, (12, 8))
    for index in range(3):
        found = masks[index]
        assert found is not None
        assert found.dtype == torch.bool
        np.testing.assert_array_equal(found, GRID > 0)
    (folder / "c.npy").unlink()
    assert Masks(str(folder), IMAGES, (12, 8))[2] is None


@pytest.mark.parametrize("squash", [False, True])
def test_masks_are_resized_and_cropped_as_their_images(folder, squash):
    images = Arrays(torch.from_numpy(GRID / 3).float()[None, None].expand(3, 3, -1, -1), None, ids=IDS)
    fitted = Fitted(images, resize=Size(16, "nearest", squash), crop=14)
    found = Masks(folder, fitted, (14, 14))[0]
    assert found is not None
    np.testing.assert_array_equal(found, fitted[0][0] > 0)
    save(folder / "cats", a=Image.fromarray(np.ones((14, 14), np.uint8)))
    with pytest.raises(ValueError, match=r"a.png has shape \(14, 14\), expected \(12, 8\), as its image"):
        Masks(folder, fitted, (14, 14))[0]


def test_arrays_and_lists():
    masks = Masks([GRID, None, GRID[None] > 0], IMAGES, (12, 8))
    assert masks[1] is None
    np.testing.assert_array_equal(masks[0], masks[2])  # pyright: ignore


def test_what_does_not_fit_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    save(folder / "cats", a=Image.fromarray(GRID[:, 1:]))
    with pytest.raises(ValueError, match=r"masks: .*a.png has shape \(12, 7\), expected \(12, 8\), as its image"):
        Masks(folder, IMAGES, (12, 8))[0]
    (folder / "cats" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"masks: .*a.png cannot be read"):
        Masks(folder, IMAGES, (12, 8))[0]
    with pytest.raises(ValueError, match=r"masks: that of sample 1 has shape \(3,\)"):
        Masks([GRID, np.ones(3), GRID], IMAGES, (12, 8))[1]
    with pytest.raises(ValueError, match="masks: that of sample 0 has NaN"):
        Masks(np.full((3, 12, 8), np.nan), IMAGES, (12, 8))[0]
    with pytest.raises(ValueError, match="masks: got 2, expected 3, one for each sample"):
        Masks([GRID, GRID], IMAGES, (12, 8))
    with pytest.raises(FileNotFoundError, match="masks: no folder nowhere"):
        Masks("nowhere", IMAGES, (12, 8))
    with pytest.raises(ValueError, match=r"no file in .* is called as a sample, such as cats/a.jpg, with one of .png"):
        Masks(tmp_path / "empty", IMAGES, (12, 8))
    with pytest.raises(ValueError, match=r"masks: the samples have shape \(\), expected images"):
        Masks([GRID] * 3, IMAGES, ())
