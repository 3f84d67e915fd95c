import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision import datasets

from captum_alignment.study import load_dataset
from captum_alignment.study.load import Samples, load_data
from captum_alignment.study.load._forms import SOURCES, TORCHVISION
from tests.study.load.test_given import Rows
from tests.test_examples import ROOT

OWN = """
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

class Stream(IterableDataset):
    def __iter__(self):
        return iter([])

class Endless(Dataset):
    def __getitem__(self, index):
        return torch.zeros(1, 8, 8)

ready = TensorDataset(torch.zeros(4, 1, 8, 8), torch.arange(4))

def make(n=3):
    return [(torch.full((1, 8, 8), i / n), i) for i in range(n)]

def number():
    return 3

def fails():
    raise OSError("no disk")
"""


def picture(path, color=(0, 0, 0), size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def listed(dataset):
    return [dataset[i] for i in range(len(dataset))]


def test_digits_are_the_held_out_samples_of_a_study():
    test, train = load_dataset("digits"), load_dataset("Digits", split="train")
    images = load_data("digits").held_out
    assert (len(test), len(train)) == (500, 1297)
    assert set(test.ids).isdisjoint(train.ids)
    where = {identity: i for i, identity in enumerate(test.ids)}
    image, label = test[where[str(int(images.index[0]))]]
    assert torch.equal(image, images.images[0])
    assert label == images.labels[0]
    assert test.classes == tuple("0123456789")


@pytest.mark.parametrize("spec", ["mnist", "MNIST"])
def test_mnist(spec, shared):
    data = load_dataset(spec, root=str(shared / "data"))
    source = datasets.MNIST(shared / "data", train=False)
    assert (len(data), data.ids[:2], data.classes) == (10000, ["0", "1"], tuple("0123456789"))
    image, label = data[7]
    assert torch.equal(image, source.data[7][None])
    assert (image.dtype, label) == (torch.uint8, source[7][1])


def fake_cifar(root, kind, patch):
    """An archive of torchvision's layout, ten images per file, whose second channel is white."""
    folder = root / kind.base_folder
    folder.mkdir()
    pixels = np.zeros((10, 3, 32, 32), np.uint8)
    pixels[:, 1] = 255
    content = {"data": pixels.reshape(10, -1), "labels": list(range(10)), "fine_labels": list(range(10))}
    for name, _ in kind.train_list + kind.test_list:
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: list("abcdefghij")}))
    patch.setattr(kind, "_check_integrity", lambda self: True)
    patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)


@pytest.mark.parametrize(("spec", "kind"), [("cifar10", datasets.CIFAR10), ("CIFAR-100", datasets.CIFAR100)])
def test_cifar(spec, kind, tmp_path, monkeypatch):
    fake_cifar(tmp_path, kind, monkeypatch)
    data = load_dataset(spec, root=tmp_path)
    image, label = data[3]
    assert image.shape == (3, 32, 32)
    assert image.float().mean((1, 2)).tolist() == [0, 255, 0]
    assert (label, data.classes, len(data)) == (3, tuple("abcdefghij"), 10)
    assert len(load_dataset(spec, root=tmp_path, split="train")) == 10 * len(kind.train_list)


def test_imagenet(tmp_path):
    names = {"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",)}
    torch.save((names, []), tmp_path / "meta.bin")
    for wnid in names:
        picture(tmp_path / "val" / wnid / "a.JPEG", size=(50, 40))
        picture(tmp_path / "train" / wnid / "b.JPEG")
    data = load_dataset("ImageNet", root=tmp_path, resize=32, crop=24)
    assert (data.classes, data.ids) == (("tench", "goldfish"), ["n01/a.JPEG", "n02/a.JPEG"])
    assert [(image.size, label) for image, label in listed(data)] == [((24, 24), 0), ((24, 24), 1)]
    assert load_dataset("imagenet", root=tmp_path, split="train").ids == ["n01/b.JPEG", "n02/b.JPEG"]


def test_texts_name_every_source():
    page = (ROOT / "docs" / "evaluate.md").read_text("utf-8")
    for name, source in SOURCES.items():
        form = f"{name}:{source.argument}" if source.argument else name
        assert f"`{form}`" in page
        assert f"``{form}``" in (load_dataset.__doc__ or "")


FREE = [name for name in TORCHVISION if name != "imagenet"]


@pytest.mark.parametrize("name", [*FREE, "FashionMNIST", "fashion_mnist"])
def test_absent_data_say_what_was_expected_where(name, tmp_path):
    with pytest.raises(ValueError, match=r"--data-root: missing, expected .*--download"):
        load_dataset(name)
    with pytest.raises(FileNotFoundError, match=r"--data-root: no .* expected .*--download"):
        load_dataset(name, root=tmp_path)


def test_absent_imagenet_cannot_be_downloaded(tmp_path):
    for download in (False, True):
        with pytest.raises(FileNotFoundError, match=r"--data-root: no ImageNet under .*devkit.*imagefolder:PATH"):
            load_dataset("imagenet", root=tmp_path, download=download)


def test_damaged_data(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09")
    with pytest.raises(ValueError, match=r"--data-root: MNIST under .* is damaged \("):
        load_dataset("mnist", root=tmp_path)


def test_no_network(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", offline)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", offline)
    with pytest.raises(
        ConnectionError, match=r"--download: CIFAR10 did not arrive at .*OSError: Network is unreachable"
    ):
        load_dataset("cifar10", root=tmp_path, download=True)


def test_class_folders(tmp_path):
    picture(tmp_path / "dog" / "deep" / "1.PNG", (9, 0, 0))
    picture(tmp_path / "cat" / "2.jpg")
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "bird").mkdir()
    with pytest.warns(UserWarning, match=r"1 skipped.*cat/notes\.txt"):
        data = load_dataset(f"imagefolder:{tmp_path}")
    assert (data.classes, data.ids) == (("bird", "cat", "dog"), ["cat/2.jpg", "dog/deep/1.PNG"])
    assert [(image.size, label) for image, label in listed(data)] == [((8, 6), 1), ((8, 6), 2)]
    assert data[1][0].getpixel((0, 0)) == (9, 0, 0)


def test_a_folder_without_classes_has_no_labels(tmp_path):
    for name in ("b.png", "a.jpg", "c.webp"):
        picture(tmp_path / name)
    data = load_dataset(f"imagefolder:{tmp_path}", resize=3)
    assert (data.ids, data.classes) == (["a.jpg", "b.png", "c.webp"], None)
    assert [image.size for image in listed(data)] == [(4, 3)] * 3


def test_broken_files_concern_only_themselves(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png", size=(64, 64))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    (tmp_path / "d.jpg").write_text("no image")
    (tmp_path / "e.png").symlink_to(tmp_path / "absent")
    data = load_dataset(f"imagefolder:{tmp_path}", crop=32)
    assert data.ids == ["a.png", "b.png", "c.png", "d.jpg", "e.png"]
    assert data[2].size == (32, 32)
    for index in (0, 1, 3, 4):
        with pytest.raises((OSError, SyntaxError)):
            data[index]


def test_the_photographs(shared):
    data = load_dataset(f"imagefolder:{shared}/data/imagenet20", resize=256, crop=227)
    assert (len(data), data[3].size, data[3].mode) == (20, (227, 227), "RGB")
    cifar = load_dataset(f"imagefolder:{shared}/data/cifar10_jpeg/test")
    assert (len(cifar), cifar.classes[0], cifar[0][1]) == (2000, "airplane", 0)


def test_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data: no folder .*absent"):
        load_dataset(f"imagefolder:{tmp_path}/absent")
    with pytest.raises(ValueError, match=r"--data: .* holds no images, expected files that end with \.jpg"):
        load_dataset(f"imagefolder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"--data: .* holds no images"):
        load_dataset(f"imagefolder:{tmp_path}")
    with pytest.raises(ValueError, match=r"--data: .*notes\.txt is a file, expected a folder"):
        load_dataset(f"imagefolder:{tmp_path}/cat/notes.txt")


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 3), (4, 3, 8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_npz(shape, dtype, tmp_path):
    x, y = (np.random.default_rng(0).random(shape) * 9).astype(dtype), np.array([1, 0, 3, 2], np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=y, ids=["p", "q", "r", "s"])
    np.savez_compressed(tmp_path / "b.npz", images=x)
    data, bare = load_dataset(f"npz:{tmp_path}/a.npz"), load_dataset(f"npz:{tmp_path}/b.npz", resize=16, crop=12)
    channels = 3 if 3 in shape else 1
    image, label = data[2]
    assert (image.shape, label, data.ids) == ((channels, 8, 8), 3, ["p", "q", "r", "s"])
    assert image.numpy().dtype == dtype
    assert np.array_equal(np.sort(image.numpy(), None), np.sort(x[2], None))
    assert (bare[0].shape, bare.ids) == ((channels, 12, 12), ["0", "1", "2", "3"])


def test_the_lossless_cifar(shared):
    file = shared / "data" / "cifar10_lossless_subset.npz"
    data, content = load_dataset(f"npz:{file}"), np.load(file)
    assert len(data) == 300
    assert np.array_equal(data[5][0].permute(1, 2, 0), content["x"][5])
    assert data[5][1] == content["y"][5]


IMAGES = np.zeros((3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": IMAGES, "y": [0]}, r"holds data, y, expected an array x or images"),
        ({}, r"holds nothing, expected an array x or images"),
        ({"x": IMAGES[:0]}, "holds no images"),
        ({"x": IMAGES.astype(int)}, r"images of .*a\.npz: int64, expected uint8, or floating"),
        ({"x": np.zeros((3, 8, 8, 5))}, r"images of .*a\.npz: shape \(3, 8, 8, 5\), expected"),
        ({"x": IMAGES, "y": [0.0, 1.0, 2.0]}, r"labels of .*a\.npz: float64, expected integers"),
        ({"x": IMAGES, "y": [0, 1]}, r"labels of .*a\.npz: shape \(2,\), expected \(3,\)"),
        ({"x": IMAGES, "ids": ["a"]}, r"ids of .*a\.npz: shape \(1,\), expected \(3,\)"),
        ({"x": np.array([{}, 1, 2])}, r"a\.npz cannot be read as npz \(ValueError: Object arrays"),
    ],
)
def test_npz_that_are_wrong(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=f"^--data: .*{message}"):
        load_dataset(f"npz:{tmp_path}/a.npz")


def test_npz_files_that_are_not(tmp_path):
    file = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match="--data: no file"):
        load_dataset(f"npz:{file}")
    np.savez(file, x=IMAGES)
    whole = file.read_bytes()
    for content in (b"", b"text", whole[:-30]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"--data: .* is no npz file, or a damaged one"):
            load_dataset(f"npz:{file}")
    middle = whole.index(b"NUMPY") + 100
    file.write_bytes(whole[:middle] + b"!" * 20 + whole[middle + 20 :])
    with pytest.raises(ValueError, match=r"--data: .* cannot be read as npz \("):
        load_dataset(f"npz:{file}")


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


def test_factories(own):
    assert [label for _, label in listed(load_dataset(f"{own}:make(n=4)"))] == [0, 1, 2, 3]
    assert isinstance(load_dataset(f"{own}:ready"), TensorDataset)
    assert load_dataset(f"{own}:make", resize=5)[1][0].shape == (1, 5, 5)


@pytest.mark.parametrize(
    ("expression", "kind", "message"),
    [
        ("number", TypeError, r"number\(\) of .* returned an object of type int, expected a map-style torch"),
        ("Stream", TypeError, "type Stream, expected a map-style torch"),
        ("Endless", TypeError, "type Endless, expected a map-style torch"),
        ("make(0)", ValueError, "type list without samples"),
        ("fails", ValueError, r"fails\(\) of .*own\.py raised OSError: no disk"),
        ("mak", ValueError, r"has no 'mak'; did you mean make\?"),
    ],
)
def test_factories_that_make_no_data_set(expression, kind, message, own):
    with pytest.raises(kind, match=f"^--data: .*{message}"):
        load_dataset(f"{own}:{expression}")


def test_data_that_are_not(own):
    with pytest.raises(
        ValueError, match=r"--data: got 'cifar', expected digits, mnist, .*did you mean cifar10 or cifar100\?"
    ):
        load_dataset("cifar")
    with pytest.raises(ValueError, match="--split: got 'val', expected test or train"):
        load_dataset("digits", split="val")
    with pytest.raises(ValueError, match=r"--split: got 'train' for .*, which is one whole"):
        load_dataset(f"{own}:make", split="train")
    with pytest.raises(ValueError, match="--crop: got 5, expected at most 4"):
        load_dataset("digits", resize=4, crop=5)


def _save(path, size=(4, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)


def test_hidden_folders_are_no_classes(tmp_path):
    for name in ("a/0.png", "b/0.png", ".ipynb_checkpoints/0.png", "__MACOSX/a/0.png"):
        _save(tmp_path / name)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"3 skipped.*\.ipynb_checkpoints/, __MACOSX/, a/\.DS_Store"):
        data = load_dataset(f"imagefolder:{tmp_path}")
    assert (data.ids, data.labels, data.classes) == (["a/0.png", "b/0.png"], [0, 1], ("a", "b"))


def test_what_the_mac_leaves_beside_an_image_is_a_sample_that_cannot_be_read(tmp_path):
    for name in ("a/0.png", "b/0.png"):
        _save(tmp_path / name)
    (tmp_path / "a" / "._0.png").write_bytes(b"\0\5\x16\7Mac OS X")
    data = load_dataset(f"imagefolder:{tmp_path}")
    assert data.ids == ["a/._0.png", "a/0.png", "b/0.png"]
    with pytest.raises(OSError, match="cannot identify image file"):
        data[0]


def test_images_beside_class_folders(tmp_path):
    for name in ("a/0.png", "b/0.png", "preview.png"):
        _save(tmp_path / name)
    with pytest.raises(ValueError, match=r"--data: .* beside folders of images, such as preview\.png beside a;"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_endings_of_images(tmp_path):
    for name in ("0.gif", "1.webp", "2.tif", "3.tiff", "4.GIF"):
        _save(tmp_path / "a" / name)
    _save(tmp_path / "a" / "5.jfif", format="JPEG")
    (tmp_path / "a" / "notes.txt").write_text("")
    with pytest.warns(UserWarning, match=r"1 skipped.*a/notes\.txt"):
        data = load_dataset(f"imagefolder:{tmp_path}")
    assert [data[i][0].size for i in range(len(data))] == [(4, 4)] * 6


def test_tables_and_other_floating_arrays_are_taken_as_they_are(tmp_path):
    random = np.random.default_rng(0)
    table, series = random.normal(size=(4, 5)).astype(np.float32), random.normal(size=(4, 2, 9))
    np.savez(tmp_path / "t.npz", x=table, y=np.array([0, 1, 1, 0]), ids=list("abcd"), classes=["no", "yes"])
    np.savez(tmp_path / "s.npz", features=series)
    data = load_dataset(f"npz:{tmp_path}/t.npz")
    assert (data.ids, data.classes) == (list("abcd"), ("no", "yes"))
    sample = Samples(data, (-9, 9))[2]
    assert sample.image is not None
    np.testing.assert_array_equal(sample.image, table[2])
    assert sample.label == 1
    sample = Samples(load_dataset(f"npz:{tmp_path}/s.npz"), (-9, 9))[1]
    assert sample.image is not None
    np.testing.assert_array_equal(sample.image, series[1])
    np.savez(tmp_path / "i.npz", x=np.ones((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"values of .*i\.npz: uint8, expected floating ones"):
        load_dataset(f"npz:{tmp_path}/i.npz")


class FakeDatasets(SimpleNamespace):
    """What `datasets` has of the functions that are called, with two splits in the cache."""

    DownloadConfig = SimpleNamespace

    def load_dataset(self, name, configuration, download_config):
        self.asked = (name, configuration, download_config.local_files_only)
        if name == "absent":
            raise ConnectionError("offline")
        return {"train": Rows(3), "validation": Rows(2)}


def test_hugging_faces_data_sets_by_name(monkeypatch):
    fake = FakeDatasets()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    data = load_dataset("hf:owner/name:tiny", split="validation", resize=3)
    assert fake.asked == ("owner/name", "tiny", True)
    assert (len(data), data.classes) == (2, ("cat", "dog"))
    assert (data[1][0].size, data[1][1]) == ((4, 3), 1)
    load_dataset("hf:owner/name", split="train", download=True)
    assert fake.asked == ("owner/name", None, False)
    with pytest.raises(ValueError, match="--split: got 'test', owner/name has train, validation"):
        load_dataset("hf:owner/name")
    with pytest.raises(FileNotFoundError, match=r"--data: no absent in a folder .*offline.*; --download fetches it"):
        load_dataset("hf:absent")
    with pytest.raises(ConnectionError, match="--data: the data set absent did not arrive"):
        load_dataset("hf:absent", download=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match="--data: datasets is not installed: pip install datasets"):
        load_dataset("hf:owner/name")


def test_loaders_and_pairs_that_a_file_has_ready(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "pair = torch.rand(4, 3), torch.arange(4)\nloader = DataLoader(TensorDataset(*pair), batch_size=3)\n"
    )
    for name in ("pair", "loader"):
        data = load_dataset(f"{tmp_path}/own.py:{name}")
        assert [int(label) for _, label in listed(data)] == [0, 1, 2, 3]
