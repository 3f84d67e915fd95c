from collections import namedtuple
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from captum_alignment.study.load import Samples
from captum_alignment.study.load._given import Features, as_dataset, fields

X, Y = torch.rand(5, 3, 8, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1, 1, 0])


def read(data, bounds=(0, 1)):
    samples = Samples(data, bounds)
    return [samples[i] for i in range(len(samples))]


def assert_are(found, images, labels):
    assert [sample.error for sample in found] == [None] * len(images)
    torch.testing.assert_close(torch.stack([sample.image for sample in found]), images)
    assert [sample.label for sample in found] == labels


class Rows:
    """The part of `datasets.Dataset` that is used: rows, features and the names of columns."""

    features = {"img": SimpleNamespace(), "label": SimpleNamespace(names=["cat", "dog"])}  # noqa: RUF012
    column_names = ("img", "label")

    def __init__(self, n=4, labels=(0, 1, -1, 0)):
        self.n, self.labels = n, labels

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return {"img": Image.new("RGB", (8, 6), (index, 100, 200)), "label": self.labels[index]}


PAIRS = {
    "tensors": (X, Y),
    "list": [X, Y],
    "arrays": (X.numpy(), Y.numpy()),
    "last channels": ((X * 255).byte().permute(0, 2, 3, 1).numpy(), Y),
    "numbers": (X, Y.tolist()),
    "column of a binary loss": (X, torch.tensor([[1.0], [0], [1], [1], [0]])),
    "columns": {"image": X, "label": Y},
    "named": namedtuple("Batch", "x y")(X, Y),
    "data set": TensorDataset(X, Y),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_pair_is_as_many_samples_as_it_has_labels(kind):
    labels = [1, 0, 1, 1, 0] if "binary" in kind else Y.tolist()
    images = (X * 255).byte() / 255 if "last" in kind else X
    assert_are(read(PAIRS[kind]), images, labels)


def test_two_samples_stay_two():
    assert_are(read([X[0], X[1]]), X[:2], [None, None])
    assert_are(read([(X[0], 1), (X[1], 0)]), X[:2], [1, 0])
    assert_are(read(X[:2]), X[:2], [None, None])
    assert_are(read(TensorDataset(X)), X, [None] * 5)


@pytest.mark.parametrize(
    "pair",
    [(X, Y[:4]), (X, torch.rand(5, 3)), (X[0], torch.tensor(1)), (X[0], 1), (X, X), [X, torch.eye(5)], (X, [1, 0])],
)
def test_pairs_that_are_none_are_refused_with_their_shapes(pair):
    with pytest.raises(
        ValueError, match=r"dataset: got a pair of shapes \(.*\) and \(.*\), expected x \(N, \.\.\.\) and y"
    ):
        as_dataset(pair)


def test_rows_of_a_table():
    table = torch.randn(4, 3)
    for data in ((table, Y[:4]), TensorDataset(table, Y[:4]), Features(table.numpy(), Y[:4].numpy())):
        assert_are(read(data, (-9, 9)), table, Y[:4].tolist())
    assert "expected a floating one" in str(read(torch.zeros(3, 3).byte().unbind())[0].error)
    with pytest.raises(TypeError, match=r"values: got torch\.int64, expected floating"):
        as_dataset((torch.zeros(4, 3).long(), Y[:4]))


def test_features_are_no_images():
    series = torch.rand(4, 2, 9)
    assert_are(read(Features(series)), series, [None] * 4)
    assert [sample.id for sample in read(Features(series, ids="abcd"))] == list("abcd")
    with pytest.raises(ValueError, match=r"values: got shape \(3,\)"):
        Features(torch.rand(3))
    with pytest.raises(ValueError, match="labels: got 5, expected 4"):
        Features(series, Y)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [2, None])
def test_a_loader_is_the_samples_of_its_data_set_in_their_order(shuffle, batch_size):
    loader = DataLoader(TensorDataset(X, Y), batch_size=batch_size, shuffle=shuffle)
    assert_are(read(loader), X, Y.tolist())


def test_a_loader_with_its_own_collate_function():
    def collate(rows):
        images = torch.stack([torch.from_numpy(np.array(row["img"])).permute(2, 0, 1) for row in rows]) / 255
        return {"pixel_values": images.flip(1), "labels": torch.tensor([row["label"] for row in rows])}

    loader = DataLoader(Rows(2), batch_size=2, collate_fn=collate)  # pyright: ignore[reportArgumentType]
    found = read(loader)
    expected = torch.tensor([[200, 100, 0], [200, 100, 1]])[:, :, None, None].expand(-1, -1, 6, 8) / 255
    assert_are(found, expected, [0, 1])
    assert Samples(loader).classes == ("cat", "dog")


def test_a_part_keeps_the_names_of_the_whole():
    class Named(TensorDataset):
        classes, ids = ("a", "b", "c"), tuple("vwxyz")

    loader = DataLoader(Named(X, Y), batch_size=2, sampler=SubsetRandomSampler([4, 1]))
    for part, indices in ((loader, [1, 4]), (Subset(Subset(Named(X, Y), [1, 3, 4]), [0, 2]), [1, 4])):
        found = read(part)
        assert_are(found, X[indices], Y[indices].tolist())
        assert [sample.id for sample in found] == ["w", "z"]
        assert Samples(part).classes == ("a", "b", "c")
    assert [sample.id for sample in read(Subset(TensorDataset(X, Y), [3]))] == ["3"]


@pytest.mark.parametrize(
    "sampling",
    [
        {"sampler": WeightedRandomSampler([1.0] * 5, 5)},
        {"sampler": RandomSampler(Y, replacement=True)},  # pyright: ignore[reportArgumentType]
        {"batch_sampler": type("Balanced", (BatchSampler,), {})(SequentialSampler(Y), 2, False)},  # pyright: ignore
    ],
)
def test_loaders_that_repeat_or_leave_out_are_refused(sampling):
    with pytest.raises(TypeError, match=r"DataLoader whose \w+ may repeat or leave out samples, expected its data set"):
        as_dataset(DataLoader(TensorDataset(X, Y), **sampling))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])

    def __len__(self):
        return 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), "got Stream, expected one with a length"),
        (DataLoader(Stream()), "got Stream, expected one with a length"),
        ("images", "got str"),
        ({"train": X, "test": X}, "got dict with 'train', 'test', expected one data set, such as one of them"),
        ({"image": X}, "got dict with 'image', expected one data set"),
    ],
)
def test_what_is_no_data_set(data, message):
    with pytest.raises(TypeError, match=f"dataset: {message}"):
        as_dataset(data)


def test_rows_of_hugging_face():
    found = read(Rows())
    expected = torch.tensor([[i, 100, 200] for i in range(4)])[:, :, None, None].expand(-1, -1, 6, 8) / 255
    assert_are(found, expected, [0, 1, None, 0])
    assert Samples(Rows()).classes == ("cat", "dog")


def test_a_row_with_an_image_that_is_not_decoded(tmp_path):
    file = BytesIO()
    Image.new("RGB", (4, 3), (1, 2, 3)).save(file, format="PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    for image in ({"bytes": file.getvalue(), "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}):
        (sample,) = read([{"image": image, "labels": 1}])
        assert sample.image is not None
        assert sample.image.amax((1, 2)).mul(255).tolist() == [1, 2, 3]


@pytest.mark.parametrize("item", [{"text": "a", "label": 1}, {}, (X[0], 1, 2), ()])
def test_items_that_are_no_samples(item):
    with pytest.raises(
        ValueError, match=r"a row with .*, expected one of image|a tuple of \d, expected \(image, label\)"
    ):
        fields(item)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "CMYK", "YCbCr"])
def test_values_of_a_pil_image_are_colours(mode):
    grey = Image.new("RGB", (4, 3), (255, 255, 255))
    (sample,) = read([grey.convert(mode)])
    assert sample.image is not None, sample.error
    assert sample.image.shape == (1 if mode in ("1", "L", "LA") else 3, 3, 4)
    np.testing.assert_allclose(sample.image, 1, atol=0.01)


def test_a_grey_image_among_images_in_colour():
    samples = Samples([Image.new(mode, (4, 3)) for mode in ("RGB", "L", "RGBA")], shape=(3, 3, 4))
    assert [samples[i].error for i in range(3)] == [None] * 3
