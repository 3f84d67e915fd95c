import pytest
import torch

from captum_alignment.metrics import remove_features
from captum_alignment.study.load import as_split
from captum_alignment.study.roar._cell import Removal, modify
from captum_alignment.study.roar._grid import UNMODIFIED, Cell
from captum_alignment.study.roar._maps import keep_maps
from tests.study.roar.known import TEST, constant, known_network, perfect
from tests.study.roar.test_maps import NoBar

SPLIT = as_split(TEST, "test", (0, 1))
MEAN = SPLIT.images.mean((0, 2, 3))


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for method in (perfect, constant):
        keep_maps(known_network(), method.__name__, method, SPLIT, folder / method.__name__, per="pixel", bar=NoBar())
    return folder


@pytest.mark.parametrize(("mode", "keep"), [("roar", False), ("kar", True)])
def test_a_cell_sees_what_the_metric_leaves(maps, mode, keep):
    found = modify(SPLIT, maps / "perfect", Cell(mode, "perfect", 0.125, 0), Removal(MEAN, "pixel", False))
    expected = remove_features(SPLIT.images, perfect(SPLIT.images, SPLIT.labels), 0.125, baselines=MEAN, keep=keep)
    assert torch.equal(found.split.images, expected)
    assert found.split.labels is SPLIT.labels
    assert (found.constant, found.tied) == (0, 0)


def test_ties_are_broken_by_the_seed_and_counted(maps):
    removal = Removal(MEAN, "pixel", False)
    found = [modify(SPLIT, maps / "constant", Cell("roar", "constant", 0.5, seed), removal) for seed in (0, 0, 1)]
    a, again, b = (one.split.images for one in found)
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    assert (found[0].constant, found[0].tied) == (len(TEST), len(TEST))
    partly = modify(SPLIT, maps / "perfect", Cell("roar", "perfect", 0.5, 0), removal)
    assert (partly.constant, partly.tied) == (0, len(TEST))


def test_unmodified_images_need_no_maps(tmp_path):
    assert modify(SPLIT, tmp_path, Cell(UNMODIFIED, UNMODIFIED, 0.0, 0), Removal(MEAN, "pixel", False)).split is SPLIT
