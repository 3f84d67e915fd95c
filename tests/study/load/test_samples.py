import numpy as np
import pytest
import torch
from PIL import Image

from captum_alignment.study.load import Samples
from captum_alignment.study.load._samples import as_image, as_label

RGB = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


@pytest.mark.parametrize(
    "image",
    [RGB, Image.fromarray(RGB), torch.from_numpy(RGB).permute(2, 0, 1), RGB / np.float32(255)],
    ids=["array", "pil", "tensor", "float"],
)
def test_every_form_of_an_image_is_the_same_tensor(image):
    expected = torch.from_numpy(RGB).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(as_image(image), expected)


def test_grey_images_get_a_channel():
    assert as_image(np.zeros((5, 4), np.uint8)).shape == (1, 5, 4)
    assert as_image(Image.new("L", (4, 5))).shape == (1, 5, 4)
    assert as_image(torch.zeros(3, 7, 1)).shape == (3, 7, 1)  # a tensor has its channels first


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("file.png", "the image is str"),
        (torch.zeros(2, 3, 4, 5), r"shape \(2, 3, 4, 5\)"),
        (torch.zeros(3, 4, dtype=torch.int64), "dtype torch.int64"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises((TypeError, ValueError), match=message):
        as_image(image)


class Broken:
    ids = ("a", "b/c.png", "d", "e", "f", "g")
    items = (
        torch.zeros(1, 2, 2),
        torch.full((1, 2, 2), 2.0),
        (torch.zeros(1, 3, 2), 1),
        4,
        torch.full((1, 2, 2), np.nan),
    )

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 5:
            raise OSError("truncated file")
        return self.items[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_says_why_and_loses_no_other(workers):
    (samples,) = Samples(Broken(), shape=(1, 2, 2)).batches([range(6)], workers=workers)
    assert [sample.id for sample in samples] == list(Broken.ids)
    assert [sample.index for sample in samples] == list(range(6))
    assert samples[0].error is None
    assert samples[0].label is None
    messages = (
        "values from 2 to 2, expected 0 to 1",
        "shape (1, 3, 2), expected (1, 2, 2)",
        "shape ()",
        "NaN",
        "truncated",
    )
    for sample, message in zip(samples[1:], messages, strict=True):
        assert sample.image is None
        assert sample.error is not None
        assert message in sample.error


def test_an_iterable_is_no_data_set():
    with pytest.raises(TypeError, match="dataset: got generator"):
        Samples(i for i in range(3))


@pytest.mark.parametrize("label", [1, 1.0, True, np.int64(1), np.float32(1), torch.tensor(1.0), torch.tensor([1])])
def test_a_label_is_one_class(label):
    if label is True:
        with pytest.raises(TypeError, match="the label is bool"):
            as_label(label)
    else:
        assert as_label(label) == 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([1.0, 0, 1]), r"label has shape \(3,\).*no multi-hot"),
        (0.3, "label is 0.3"),
        ("cat", "label is str"),
        (torch.tensor([]), r"label has shape \(0,\)"),
    ],
)
def test_several_or_soft_labels_are_refused(label, message):
    with pytest.raises((TypeError, ValueError), match=message):
        as_label(label)
