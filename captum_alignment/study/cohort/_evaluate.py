"""Measuring the networks of a study on the same samples: an evaluation of each."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from captum_alignment.study.cohort._members import Member
from captum_alignment.study.cohort._train import load_network
from captum_alignment.study.compare import coordinates
from captum_alignment.study.evaluation import KIND, Run, evaluate, read_run
from captum_alignment.study.load import Split
from captum_alignment.study.store import processes, read_manifest, state_hash

_SHOWN = 6


def evaluate_members(
    members: Sequence[Member],
    make: Callable[[], nn.Module],
    samples: Split,
    folder: Path,
    *,
    attacks: Any,
    device: torch.device,
    about: Mapping[str, Any],
) -> list[Run]:
    """The run of every member in ``folder``; what was evaluated before is not repeated.

    Args:
        about: what all evaluations say beside their coordinates.
    """
    options = {"attacks": attacks, "shown": first_of_classes(samples.labels), "show_progress": True, "read": False}
    with processes() as group:
        for member in members:
            network, out = load_network(member, make, folder), member.evaluation_folder(folder)
            weights = state_hash(network.state_dict())
            group.from_first(lambda out=out, weights=weights: _discard_of_other_weights(out, weights))
            said = {"model": member.name, **member.coordinates, **about}
            evaluate(network.to(device), samples, out=out, about=said, **options)
    return [read_run(member.evaluation_folder(folder)) for member in members]


def join_records(runs: Sequence[Run]) -> pd.DataFrame:
    """The records of all ``runs``, each row with the name and the coordinates of its network."""
    frames = []
    for run in runs:
        frame = pd.DataFrame({name: run.records[name] for name in run.records})
        about = {"model": run.name, **coordinates(run)}
        frames.append(pd.concat([pd.DataFrame(about, index=frame.index), frame], axis=1))
    return pd.concat(frames, ignore_index=True)


def first_of_classes(labels: Tensor) -> list[int]:
    """The positions of the samples that the report shows: the first of each of the first few classes that occur."""
    return [int((labels == label).nonzero()[0, 0]) for label in labels.unique()[:_SHOWN]]


def _discard_of_other_weights(out: Path, weights: str) -> None:
    """A model that was trained again is evaluated again."""
    if out.is_dir() and read_manifest(out, KIND)["config"]["weights"] != weights:
        shutil.rmtree(out)
