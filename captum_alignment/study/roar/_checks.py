"""What a ROAR study is given, checked before any training: images in memory, and a factory whose networks differ."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_alignment.study.load import Split, evaluation_mode
from captum_alignment.study.store import state_hash


def check_splits(train: Split, test: Split) -> None:
    """`ValueError` unless the images of both have one shape."""
    expected, found = (tuple(split.images.shape[1:]) for split in (train, test))
    if expected != found:
        raise ValueError(f"test: got images of shape {found}, expected {expected} as in train")


def check_features(split: Split, fractions: Any, per: str) -> None:
    """`ValueError` for a fraction so close to 0 or 1 that it removes no feature, or all of them."""
    channels, *grid = split.images.shape[1:]
    features = torch.Size(grid).numel() * (channels if per == "value" else 1)
    for fraction in fractions:
        if round(fraction * features) in (0, features):
            raise ValueError(f"fractions: {fraction:g} of {features} features are none or all of them")


def check_classes(model: Any, split: Split, name: str) -> None:
    """`ValueError` unless ``model`` returns scores (N, K) with a class for every label."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    images = split.images[:2] if parameter is None else split.images[:2].to(parameter.device)
    with torch.no_grad(), evaluation_mode(model):
        scores: Tensor = model(images.clone())
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"{name}: returned scores of shape {tuple(scores.shape)}, expected (N, K) with K at least 2")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= scores.shape[1]:
        raise ValueError(f"{name}: has classes 0 to {scores.shape[1] - 1}, but there are labels from {low} to {high}")


def check_factory(make_model: Callable[[], nn.Module], split: Split) -> None:
    """Two networks of ``make_model`` must differ, or the seeds would train the same one, or go on with a trained one.

    Raises:
        TypeError: no network. ValueError: the same weights twice, or scores that do not fit the labels.
    """
    hashes = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            network = make_model()
        if not isinstance(network, nn.Module):
            raise TypeError(f"make_model: returned {type(network).__name__}, expected a torch.nn.Module")
        hashes.append(state_hash(network.state_dict()))
    if hashes[0] == hashes[1]:
        raise ValueError(
            "make_model: returned the same weights twice, expected a freshly initialised network from every call (one "
            "that is trained already, or made under a seed of its own, is not retrained from scratch)"
        )
    check_classes(network, split, "make_model")
