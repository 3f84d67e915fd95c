"""The supplement of Zeng et al. (2021) as a study: robustness, alignment and faithfulness over ways of training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from captum_alignment.study._distributed import processes
from captum_alignment.study._files import state_hash, versions, write_text
from captum_alignment.study._folder import open_folder
from captum_alignment.study._page import picture, write_page
from captum_alignment.study._roar import remove_and_retrain
from captum_alignment.study._roar_cell import Retraining
from captum_alignment.study._roar_data import split_hash
from captum_alignment.study._roar_maps import RANDOM
from captum_alignment.study._roar_networks import network_factory
from captum_alignment.study._roar_summary import areas
from captum_alignment.study._splits import Split
from captum_alignment.study._statistics import fieller, spearman
from captum_alignment.study._summary import USABLE
from captum_alignment.study._supplement_figures import alignment_figure, faithfulness_figure, saliency_figure
from captum_alignment.study._supplement_networks import (
    Trained,
    gradients_of,
    measure_network,
    networks_of,
    read_measures,
    train_network,
)
from captum_alignment.study._tables import Column, Table, percent, points
from captum_alignment.study._text import between, fixed, setting

KIND = "supplement"
_COLUMNS = (
    Column("network", "network", str),
    Column("accuracy", "accuracy", percent),
    Column("distance", "ρ"),
    Column("area", "ROAR area", percent),
    Column("beyond_random", "beyond random", points),
    *(
        Column(f"{kind}_{name}", head)
        for kind, mark in (("signed", "α"), ("absolute", "α of |∇|"))
        for name, head in (("alignment", mark), ("null", "chance"), ("rank", "rank"))
    ),
)


def run_supplement(
    train: Split,
    test: Split,
    *,
    out: str | Path,
    network: str,
    trainings: Sequence[str],
    fractions: Sequence[float],
    seeds: Sequence[int],
    absolute: bool,
    device: torch.device,
    training: Mapping[str, Any],
    about: Mapping[str, Any],
) -> pd.DataFrame:
    """Train networks in several ways, measure robustness and alignment, and run ROAR of the saliency of each.

    Everything is kept in ``out``; the same call continues. Processes share the networks, then the cells.

    Returns:
        One row per network: accuracy, distance (median, with its interval), signed_ and absolute_alignment, _null and
        _rank (medians), area and beyond_random of ROAR (with intervals over seeds), usable (accurate enough to count).

    Raises:
        ValueError: as `remove_and_retrain`; an unknown training, or one that diverged.
    """
    folder, retraining = Path(out), Retraining(**training)
    make = network_factory(network, train)
    chosen = networks_of(trainings, train.images.shape[2:].numel())
    config = {
        "network": network,
        "trainings": [one.name for one in chosen],
        "train": len(train),
        "test": len(test),
        "train data": split_hash(train),
        "test data": split_hash(test),
        "absolute": absolute,
        **asdict(retraining),
        **about,
    }
    with processes() as group:
        group.from_first(lambda: open_folder(folder, KIND, config))
        for one in group.share(chosen):
            module = train_network(one, make, train, retraining, folder, device)
            measure_network(one, module, test, folder, device)
        group.wait()
        modules = {one: train_network(one, make, train, retraining, folder, device) for one in chosen}
        methods = {one.name: gradients_of(module, device) for one, module in modules.items()}
        cells = remove_and_retrain(
            modules[chosen[0]].to(device),
            make,
            train,
            test,
            out=folder / "roar",
            methods={**methods, RANDOM: RANDOM},
            fractions=fractions,
            seeds=seeds,
            absolute=absolute,
            device=device,
            show_progress=True,
            about={**about, **{one.name: state_hash(module.state_dict()) for one, module in modules.items()}},
            **training,
        )
        table = summary(chosen, folder, cells)
        if group.rank == 0:
            write_text(folder / "networks.csv", table.to_csv(index=False))
            shown = first_images(test)
            images = shown.to(device).clone().requires_grad_()
            maps = {name: gradient(images, shown).cpu() for name, gradient in methods.items()}
            _write_report(folder / "report.html", table, shown, maps, config, len(seeds))
        group.wait()
    return table


def summary(chosen: Sequence[Trained], folder: Path, cells: pd.DataFrame) -> pd.DataFrame:
    measured = pd.DataFrame([read_measures(one, folder) for one in chosen])
    table = measured.merge(areas(cells).drop(columns="mode"), left_on="network", right_on="method").drop(
        columns="method"
    )
    return table.assign(usable=table["accuracy"] >= USABLE * table["accuracy"].max())


def verdict(table: pd.DataFrame) -> str:
    """Whether robustness goes with faithfulness over the usable networks, as far as so few can say."""
    usable = table[table["usable"]]
    n = len(usable)
    if n < 4:
        return f"{n} usable networks are too few for a correlation."
    r = float(spearman(usable["distance"], -usable["area"]))
    if np.isnan(r):
        return "Not all networks differ, so that there is no correlation."
    low, high = (float(end) for end in fieller(r, n))
    said = (
        f"Over {n} usable networks the rank correlation of median robustness and faithfulness (a small ROAR area) is "
    )
    if np.isnan(low):
        return f"{said}{fixed(r, sign=True)}; they are too few for an interval, and so for a conclusion."
    sure = "robustness goes with faithfulness" if low > 0 else "robustness goes against faithfulness"
    end = "no correlation can be told from chance" if low <= 0 <= high else sure
    return f"{said}{fixed(r, sign=True)} {between(low, high, sign=True)}: {end}."


def first_images(test: Split, count: int = 6) -> torch.Tensor:
    """The first image of each of the first classes, not chosen by result."""
    classes = test.labels.unique()[:count]
    return torch.stack([test.images[int((test.labels == label).nonzero()[0])] for label in classes])


def _write_report(
    path: Path,
    table: pd.DataFrame,
    shown: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    seeds: int,
) -> None:
    write_page(
        path,
        "supplement.html.jinja",
        name=path.resolve().parent.name,
        config=config,
        seeds=seeds,
        verdict=verdict(table),
        table=Table("networks", "the networks", table, _COLUMNS),
        left_out=[row["network"] for row in table.to_dict("records") if not row["usable"]],
        usable_share=USABLE,
        faithfulness=picture(
            faithfulness_figure(table),
            "Median robustness against the area under the ROAR curve of each network’s saliency, small where it is "
            "faithful. Bars are 95 % intervals; the grey line is a random ranking; crosses are networks left out.",
        ),
        alignment=picture(
            alignment_figure(table),
            "Median alignment against the strength of training, of signed and of absolute gradients, each with its "
            "chance level, dashed: what the maps of other images score.",
        ),
        saliency=picture(
            saliency_figure(shown, maps),
            "Signed gradients of the predicted class’s score; red is positive, blue negative, each map on its own "
            "scale. The first test image of each of the first classes, not chosen by result.",
        ),
        settings={key: setting(value) for key, value in config.items() if not key.endswith(" data")},
        versions=versions(),
    )
