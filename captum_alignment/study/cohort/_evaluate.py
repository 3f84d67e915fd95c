"""Measuring the cohort on the held-out samples: one evaluation per model."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_alignment.study.cohort._config import StudyConfig
from captum_alignment.study.cohort._train import Member, load_network, members
from captum_alignment.study.evaluation import KIND, evaluate, gallery_file
from captum_alignment.study.load import Data
from captum_alignment.study.store import read_arrays, read_manifest, state_hash

_SHOWN = 6


def evaluate_cohort(config: StudyConfig, data: Data, folder: Path, *, device: torch.device) -> pd.DataFrame:
    """The records of every member, one row per model and sample; what was evaluated before is not repeated."""
    frames = []
    for member in members(config):
        network = load_network(member, data, folder).to(device)
        out = evaluation_folder(member, folder)
        _discard_of_other_weights(out, state_hash(network.state_dict()))
        frame = evaluate(
            network,
            data.held_out,
            out=out,
            attacks=config.attacks,
            show_progress=True,
            shown=first_of_classes(data.held_out.labels),
            about={"model": member.name, "dataset": config.dataset, "classes": list(data.classes)},
        )
        about = {"model": member.name, "strength": member.strength, "training_seed": member.seed}
        frames.append(pd.concat([pd.DataFrame(about, index=frame.index), frame], axis=1))
    return pd.concat(frames, ignore_index=True)


def evaluation_folder(member: Member, folder: Path) -> Path:
    return folder / "evaluations" / member.name


def read_gallery(member: Member, folder: Path) -> dict[str, np.ndarray]:
    """sample, image, gradient, binarized_gradient and adversarial of the samples that the report shows."""
    return read_arrays(gallery_file(evaluation_folder(member, folder)))


def first_of_classes(labels: Tensor) -> list[int]:
    """The positions of the samples that the report shows: the first of each of the first few classes that occur."""
    return [int((labels == label).nonzero()[0, 0]) for label in labels.unique()[:_SHOWN]]


def _discard_of_other_weights(out: Path, weights: str) -> None:
    """A model that was trained again is evaluated again."""
    if out.is_dir() and read_manifest(out, KIND)["config"]["weights"] != weights:
        shutil.rmtree(out)
