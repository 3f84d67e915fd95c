import numpy as np
import pandas as pd
import pytest
import torch

from captum_alignment.study.evaluation._gallery import GalleryMaps

DISTANCES = np.random.default_rng(0).permutation([*np.linspace(0.1, 3, 27), np.inf, np.nan, 0.1])
RECORDS = pd.DataFrame({"sample": range(30), "distance": DISTANCES})


def remember(maps: GalleryMaps, indices) -> None:
    images = torch.tensor(indices, dtype=torch.float64).reshape(-1, 1, 1, 1)
    maps.remember(list(indices), pd.Series(DISTANCES[list(indices)]), {"image": images, "gradient": -images})


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_the_extremes_are_shown_whatever_the_batches(batch):
    maps = GalleryMaps()
    for start in range(0, 30, batch):
        remember(maps, range(30)[start : start + batch])
    assert maps.missing(RECORDS) == []
    shown = maps.arrays(RECORDS)
    finite = sorted((i for i in range(30) if np.isfinite(DISTANCES[i])), key=lambda i: (DISTANCES[i], i))
    assert shown["sample"].tolist() == finite[:6] + finite[::-1][:6]
    assert shown["kind"].tolist() == ["least"] * 6 + ["most"] * 6
    np.testing.assert_array_equal(shown["image"].ravel(), shown["sample"])
    np.testing.assert_array_equal(shown["gradient"].ravel(), -shown["sample"])
    assert len(maps._kept) == 12


def test_what_another_process_measured_is_missing_here():
    maps = GalleryMaps()
    remember(maps, range(0, 30, 2))
    odd = maps.missing(RECORDS)
    assert odd
    assert all(index % 2 for index in odd)
    remember(maps, odd)
    assert maps.missing(RECORDS) == []
    assert len(maps.arrays(RECORDS)["sample"]) == 12


def test_few_samples_are_shown_once():
    maps = GalleryMaps()
    remember(maps, range(8))
    shown = maps.arrays(RECORDS.head(8))
    assert sorted(shown["sample"]) == sorted(i for i in range(8) if np.isfinite(DISTANCES[i]))


def test_chosen_samples_are_shown_as_far_as_they_were_measured():
    maps = GalleryMaps([5, 3, int(np.isnan(DISTANCES).argmax())])
    remember(maps, range(30))
    assert maps.arrays(RECORDS)["sample"].tolist() == [5, 3]
    assert maps.arrays(RECORDS)["kind"].tolist() == ["shown", "shown"]


def test_nothing_measured_shows_nothing():
    assert GalleryMaps().arrays(pd.DataFrame({"sample": [0], "error": ["broken"]})) == {}
    assert GalleryMaps().missing(pd.DataFrame({"sample": [0], "error": ["broken"]})) == []
