import torch

from captum_alignment.study.fit import count_correct
from captum_alignment.study.fit._fit import augmented
from captum_alignment.study.load import as_split
from tests.study.roar.known import TEST, known_network

SPLIT = as_split(TEST, "test", (0, 1))


def test_augmented_images_are_shifted_and_flipped_copies():
    images = torch.rand(40, 2, 6, 5)
    torch.manual_seed(0)
    found = augmented(images)
    padded = torch.nn.functional.pad(images, (4,) * 4)
    flips = 0
    for image, source in zip(found, padded, strict=True):
        windows = source.unfold(1, 6, 1).unfold(2, 5, 1)
        straight = (windows == image[:, None, None]).all((0, 3, 4)).any()
        flipped = (windows == image.flip(2)[:, None, None]).all((0, 3, 4)).any()
        assert straight or flipped
        flips += int(flipped)
    assert 8 < flips < 32


def test_correct_predictions_are_counted():
    assert count_correct(known_network(), SPLIT, torch.device("cpu")) == len(TEST)
