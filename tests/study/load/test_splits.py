import numpy as np
import pytest
import torch

from captum_alignment.study.load import load_data


def test_digits_are_images_in_the_unit_interval():
    data = load_data("digits")
    assert data.train.images.shape == (1297, 1, 8, 8)
    assert data.held_out.images.shape == (500, 1, 8, 8)
    assert data.train.images.dtype == torch.float32
    assert (data.train.images.min(), data.train.images.max()) == (0, 1)
    assert data.classes == tuple("0123456789")


def test_no_sample_is_trained_and_evaluated():
    data = load_data("digits")
    both = torch.cat([data.train.index, data.held_out.index])
    assert both.unique().numel() == both.numel() == 1797


def test_the_index_finds_the_sample_in_its_source():
    from sklearn.datasets import load_digits

    source, data = load_digits(), load_data("digits", eval_size=5, seed=3)
    index = data.held_out.index.numpy()
    np.testing.assert_allclose(data.held_out.images[:, 0].numpy() * 16, source.images[index])  # pyright: ignore
    np.testing.assert_array_equal(data.held_out.labels.numpy(), source.target[index])  # pyright: ignore


def test_the_seed_chooses_the_samples():
    first, again, other = (load_data("digits", eval_size=20, seed=seed).held_out.index for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("options", "name"), [({"train_size": 1298}, "train_size"), ({"eval_size": 501}, "eval_size")])
def test_more_samples_than_there_are(options, name):
    with pytest.raises(ValueError, match=f"{name}: got .* expected at most"):
        load_data("digits", **options)


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist", "cifar10"])
def test_absent_data_say_what_was_expected_where(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"--data-root: missing, expected .*--download"):
        load_data(dataset)
    with pytest.raises(FileNotFoundError, match=r"--data-root: no .* expected .*--download"):
        load_data(dataset, data_root=tmp_path)


def test_real_mnist(shared):
    data = load_data("mnist", train_size=100, eval_size=50, data_root=shared / "data")
    assert data.train.images.shape == (100, 1, 28, 28)
    assert data.held_out.images.max() == 1
    assert data.held_out.index.max() < 10000
    assert data.classes == tuple("0123456789")


def test_color_images_are_channels_first(tmp_path):
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    from torchvision.datasets import CIFAR10

    pixels = np.zeros((10, 3, 32, 32), np.uint8)
    pixels[:, 1] = 255
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        (folder / name).write_bytes(pickle.dumps({"data": pixels.reshape(10, -1), "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "_check_integrity", lambda self: True)
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
        data = load_data("cifar10", train_size=20, eval_size=10, data_root=tmp_path)
    assert data.train.images.shape == (20, 3, 32, 32)
    torch.testing.assert_close(data.held_out.images.mean((0, 2, 3)), torch.tensor([0.0, 1.0, 0.0]))
