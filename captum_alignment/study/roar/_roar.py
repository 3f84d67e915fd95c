"""ROAR and KAR: are the features that an attribution ranks highest those that a network needs to learn the task?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from captum_alignment.study.fit import EpochBar, TrainingConfig
from captum_alignment.study.load import MapFunction, Split, as_device, as_split, resolve_methods, split_hash
from captum_alignment.study.roar._cell import Removal, modify, run_cell
from captum_alignment.study.roar._checks import check_classes, check_factory, check_features, check_splits
from captum_alignment.study.roar._config import FRACTIONS, METHODS
from captum_alignment.study.roar._grid import UNMODIFIED, Cell, make_grid, missing_cells, read_cells, write_cell
from captum_alignment.study.roar._maps import keep_maps, read_maps
from captum_alignment.study.roar._report import write_roar_report
from captum_alignment.study.roar._summary import areas
from captum_alignment.study.store import Processes, open_folder, processes, state_hash, write_text, write_weights

KIND = "roar"
#: The explained network in the folder of its study.
MODEL = "model.pt"


def remove_and_retrain(
    model: Any,
    make_model: Callable[[], nn.Module],
    train: Any,
    test: Any,
    *,
    out: str | Path,
    methods: Sequence[str] | Mapping[str, Any] = METHODS,
    fractions: Sequence[float] = FRACTIONS,
    modes: Sequence[str] = ("roar",),
    seeds: Sequence[int] = (0,),
    per: str = "pixel",
    absolute: bool = False,
    bounds: tuple[float, float] = (0, 1),
    device: str | torch.device = "cpu",
    show_progress: bool = False,
    about: Mapping[str, Any] | None = None,
    **training: Any,
) -> pd.DataFrame:
    """Retrain without the features that attributions of ``model`` rank highest (ROAR), or with these alone (KAR).

    Every train and test image is attributed once, for the class that ``model`` predicts, as in the original: a label
    would give itself away by what is removed. For each mode, method, fraction and seed the features are replaced by the
    mean of their channel over ``train``, a fresh network is trained on the modified train images and tested on the
    modified test images. With a seed all cells begin with the same weights and see the samples in the same order.

    A cell is one file in ``out``: the same call continues what was interrupted and repeats nothing, and one with more
    methods, fractions, modes or seeds adds to it. Under torchrun the processes share the cells. The data are held in
    memory, one modified copy with them; the maps are read from disk.

    Args:
        model: the trained network that is explained, returning (N, K) logits, or (N,) / (N, 1): the logit of class 1,
            for images (N, C, H, W); input normalisation inside.
        make_model: returns a freshly initialised network; called under a seed.
        train, test: data sets of (image, label), as for `evaluate`.
        out: folder: new, empty, or of this study.
        methods: names of built-in ones (random, sobel, saliency, smoothgrad, input-x-gradient, integrated-gradients,
            gradcam, binarized-saliency), or a mapping of names to such names, to Captum attributions, or to functions
            of images and predicted classes that return maps shaped like the images; per pixel, (N, 1, H, W) will do.
        fractions: of the features, strictly between 0 and 1.
        modes: "roar" replaces the top fraction, "kar" keeps it and replaces the rest.
        seeds: of initialisation, order of samples, and ties.
        per, absolute: how features are ranked, as in `remove_features`. The built-in gradients are signed, while
            Captum's `Saliency` takes absolute values unless it is told not to.
        bounds: of the values of images.
        device: that trains; the maps are computed where ``model`` is.
        show_progress: bars with the time left, on the first process.
        about: anything else that tells this study from another, as JSON can hold it.
        training: options of every training: epochs (15), batch_size (50), optimizer ("adam" or "sgd"), learning_rate
            (2e-3), decay_every (None: along a cosine), weight_decay (0), augment (False).

    Returns:
        One row per cell: mode, method, fraction, seed, accuracy, correct, tested, constant_train and constant_test (the
        images whose map is constant, so that chance alone ranks), tied_train and tied_test (the images whose cut lies
        among features of equal importance), seconds. The networks on unmodified images have mode and method
        "unmodified". The folder also has ``cells.csv``, ``areas.csv`` and ``report.html``.

    Raises:
        ValueError, TypeError: arguments out of range; a factory that returns the same weights twice; maps that are not
            shaped like the images; a folder of something else, or of another configuration (the difference is shown).

    Hooker, Erhan, Kindermans & Kim (2019).
    """
    retraining, target, folder = TrainingConfig(**training), as_device(str(device)), Path(out)
    splits = {name: as_split(data, name, bounds) for name, data in {"train": train, "test": test}.items()}
    grid = make_grid(tuple(methods), fractions, modes, seeds)
    named = resolve_methods(methods, model, bounds)
    check_splits(splits["train"], splits["test"])
    check_features(splits["train"], fractions, per)
    for split in splits.values():
        check_classes(model, split, "model")
    check_factory(make_model, splits["train"])
    removal = Removal(splits["train"].images.mean((0, 2, 3)), per, absolute)
    config = {
        "model": getattr(model, "__qualname__", type(model).__qualname__),
        "weights": state_hash(model.state_dict()) if isinstance(model, nn.Module) else "unknown (a function)",
        "retrained": getattr(make_model, "__qualname__", type(make_model).__qualname__),
        **{name: len(split) for name, split in splits.items()},
        "shape": list(splits["train"].images.shape[1:]),
        **{f"{name} data": split_hash(split) for name, split in splits.items()},
        "per": per,
        "absolute": absolute,
        **asdict(retraining),
        **(about or {}),
    }
    with processes() as group:
        todo = group.from_first(lambda: _open(folder, config, grid, model))
        _keep_all_maps(group, model, named, splits, folder, todo, per, show_progress)
        show = show_progress and group.rank == 0 and bool(todo)
        with tqdm(
            total=len(todo) * retraining.epochs, desc="retraining", unit="epoch", dynamic_ncols=True, disable=not show
        ) as bar:
            for cell in group.share(todo, lambda cells: bar.update(len(cells) * retraining.epochs)):
                bar.set_postfix_str(cell.name)
                train_on, test_on = (
                    modify(split, _maps(folder, cell.method, name), cell, removal) for name, split in splits.items()
                )
                bars = [EpochBar(bar)]
                found = run_cell(cell, make_model, train_on, test_on, retraining, device=target, callbacks=bars)
                write_cell(folder, cell, found)
        group.wait()
        cells = group.from_first(lambda: _finish(folder, grid, config, removal, splits["test"]))
    return cells


def _open(folder: Path, config: dict[str, Any], grid: Sequence[Cell], model: Any) -> list[Cell]:
    """The cells that are still to be run."""
    open_folder(folder, KIND, config)
    if isinstance(model, nn.Module) and not (folder / MODEL).is_file():
        write_weights(folder / MODEL, model.state_dict())
    return missing_cells(folder, grid)


def _keep_all_maps(
    group: Processes,
    model: Any,
    methods: Mapping[str, MapFunction],
    splits: Mapping[str, Split],
    folder: Path,
    todo: Sequence[Cell],
    per: str,
    show_progress: bool,
) -> None:
    """The maps that the cells ``todo`` need, shared among the processes."""
    needed = {cell.method for cell in todo}
    work = [(name, split) for name in methods if name in needed for split in splits]
    show = show_progress and group.rank == 0 and bool(work)

    def images(work: Sequence[tuple[str, str]]) -> int:
        return sum(len(splits[split]) for _, split in work)

    with tqdm(total=images(work), desc="attributing", unit="image", dynamic_ncols=True, disable=not show) as bar:
        for name, split in group.share(work, lambda work: bar.update(images(work))):
            bar.set_postfix_str(f"{name}, {split}")
            keep_maps(model, name, methods[name], splits[split], _maps(folder, name, split), per=per, bar=bar)
    group.wait()


def _maps(folder: Path, method: str, split: str) -> Path:
    return folder / "maps" / method / split


def _finish(folder: Path, grid: Sequence[Cell], config: dict[str, Any], removal: Removal, test: Split) -> pd.DataFrame:
    cells = read_cells(folder, grid)
    write_text(folder / "cells.csv", cells.to_csv(index=False))
    write_text(folder / "areas.csv", areas(cells).to_csv(index=False))
    examples = {
        cell: removal(
            test.images[:1],
            read_maps(test, _maps(folder, cell.method, "test"), 0, 1),
            cell,
            torch.Generator().manual_seed(cell.seed),
        )[0]
        for cell in grid
        if cell.seed == grid[0].seed and cell.mode != UNMODIFIED
    }
    write_roar_report(folder / "report.html", cells, config, test.images[0], examples)
    return cells
