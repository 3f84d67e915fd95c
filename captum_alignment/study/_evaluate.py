"""Measuring the cohort on the held-out samples: one table per model, and the maps that the report shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foolbox as fb
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import alignment_null
from captum_alignment.robust import DeepFool, GradientAttack
from captum_alignment.study._cohort import Member, load_network, members
from captum_alignment.study._config import PORTFOLIOS, StudyConfig
from captum_alignment.study._explain import explain
from captum_alignment.study._records import COLUMNS, file_hash, read_arrays, table_about, write_arrays, write_table
from captum_alignment.study._splits import Data, Split

#: Samples per attack run. Carlini-Wagner stops early on the whole batch's loss, so this is part of the method.
_BATCH = 100
_GALLERY = 6

_ATTACKS: dict[str, Callable[[], Any]] = {
    "gradient": GradientAttack,
    "deepfool": DeepFool,
    "ddn": lambda: fb.attacks.DDNAttack(steps=100),
    # A twelfth of the steps of the paper's setting; the larger stepsize makes up for most of them.
    "carlini-wagner": lambda: fb.attacks.L2CarliniWagnerAttack(
        binary_search_steps=4, steps=100, stepsize=0.1, initial_const=0.1
    ),
}


def make_attacks(names: tuple[str, ...]) -> Any:
    """What `adversarial_distance` takes for ``names``: a portfolio's name or {name: attack}."""
    return names[0] if names[0] in PORTFOLIOS else {name: _ATTACKS[name]() for name in names}


def gallery_positions(labels: Tensor) -> Tensor:
    """The positions of the samples that the report shows: the first of each of the first few classes that occur."""
    first = [(labels == label).nonzero()[0, 0] for label in labels.unique()[:_GALLERY]]
    return torch.stack(first)


def evaluate_cohort(config: StudyConfig, data: Data, folder: Path, *, device: torch.device) -> pd.DataFrame:
    """The records of every member, one row per model and sample; members evaluated before are read, not repeated."""
    cohort = members(config)
    n = len(data.held_out.labels)
    frames = []
    with tqdm(total=len(cohort) * n, desc="evaluating", unit="sample", dynamic_ncols=True) as bar:
        for member in cohort:
            bar.set_postfix_str(f"strength {member.strength:g}, seed {member.seed}")
            table, arrays = evaluation_files(member, folder)
            weights = file_hash(member.weights_file(folder))
            # The table is written last. With these weights and columns it stands for a finished evaluation.
            if arrays.is_file() and table.is_file() and table_about(table) == {"columns": COLUMNS, "weights": weights}:
                bar.update(n)
            else:
                network = load_network(member, data, folder)
                frame, maps = evaluate(network, data.held_out, config.attacks, device=device, progress=bar.update)
                frame.insert(0, "model", member.name)
                frame.insert(1, "strength", member.strength)
                frame.insert(2, "training_seed", member.seed)
                write_arrays(arrays, maps)
                write_table(table, frame, weights=weights)
            frames.append(pd.read_parquet(table))
    return pd.concat(frames, ignore_index=True)


def evaluation_files(member: Member, folder: Path) -> tuple[Path, Path]:
    """The table and the gallery's arrays of ``member``."""
    base = folder / "evaluations"
    return base / f"{member.name}.parquet", base / f"{member.name}.npz"


def read_gallery(member: Member, folder: Path) -> dict[str, np.ndarray]:
    """position, image, gradient, binarized_gradient and adversarial of the samples that the report shows."""
    return read_arrays(evaluation_files(member, folder)[1])


def evaluate(
    network: nn.Module,
    samples: Split,
    attacks: tuple[str, ...],
    *,
    device: torch.device,
    progress: Callable[[int], Any] = lambda count: None,  # noqa: ARG005
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Every per-sample quantity of one model, and the maps of the gallery's samples.

    Returns:
        A table with one row per sample: sample (its index in the source), label, prediction, the scalars of
        `linear_analysis`, null, excess and rank of `alignment_null`, distance (the smallest, refined; inf where no
        attack succeeded), attack (whose it is), distance_<attack> (verified, unrefined), and what `explain` adds.
    """
    network = network.to(device).eval()
    chosen = make_attacks(attacks)
    tables, gradients, binarized, adversarials = [], [], [], []
    for images in samples.images.split(_BATCH):
        inputs = images.to(device)
        analysis = linear_analysis(network, inputs)
        found = adversarial_distance(network, inputs, attacks=chosen)
        distances = found.to_dataframe().rename(columns={name: f"distance_{name}" for name in found.names})
        explained = explain(network, inputs, analysis.rival, found.adversarials)
        tables.append(pd.concat([analysis.to_dataframe(), distances, explained], axis=1))
        gradients.append(_tensor(analysis.gradient))
        binarized.append(_tensor(analysis.binarized_gradient))
        adversarials.append(_tensor(found.adversarials))
        progress(len(images))
    frame = pd.concat(tables, ignore_index=True).rename(columns={"target": "prediction"})
    maps = torch.cat(gradients)
    chance = alignment_null(samples.images, maps)
    after = frame.columns.get_loc("alignment")
    for offset, name in enumerate(("null", "excess", "rank"), 1):
        frame.insert(int(after) + offset, name, getattr(chance, name).numpy())  # pyright: ignore[reportArgumentType]
    frame.insert(0, "sample", samples.index.numpy())
    frame.insert(1, "label", samples.labels.numpy())
    shown = gallery_positions(samples.labels)
    gallery = {
        "position": shown,
        "image": samples.images[shown],
        "gradient": maps[shown],
        "binarized_gradient": torch.cat(binarized)[shown],
        "adversarial": torch.cat(adversarials)[shown],
    }
    return frame, {name: tensor.numpy() for name, tensor in gallery.items()}


def _tensor(value: Any) -> Tensor:
    return value.detach().cpu()
