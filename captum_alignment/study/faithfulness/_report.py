"""The verdict and the report of the study of faithfulness."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from captum_alignment.study.compare import USABLE
from captum_alignment.study.faithfulness._figures import alignment_figure, faithfulness_figure, saliency_figure
from captum_alignment.study.page import (
    PERCENT,
    Column,
    Table,
    between,
    counted,
    fixed,
    percent,
    picture,
    points,
    setting,
    spearman,
    spearman_interval,
    write_page,
)
from captum_alignment.study.store import versions

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


def verdict(table: pd.DataFrame) -> str:
    """Whether robustness goes with faithfulness over the usable networks, as far as so few can say."""
    usable = table[table["usable"]]
    n = len(usable)
    if n < 4:
        return f"{counted(n, 'usable network')} {'is' if n == 1 else 'are'} too few for a correlation."
    robustness, faithfulness = usable["distance"], -usable["area"]
    r = float(spearman(robustness, faithfulness))
    if np.isnan(r):
        return "Not all networks differ, so that there is no correlation."
    low, high = spearman_interval(robustness, faithfulness)
    said = (
        f"Over {n} usable networks the rank correlation of median robustness and faithfulness (a small ROAR area) is "
    )
    if np.isnan(low):
        return f"{said}{fixed(r, sign=True)}; they are too few for an interval, and so for a conclusion."
    sure = "robustness goes with faithfulness" if low > 0 else "robustness goes against faithfulness"
    end = "no correlation can be told from chance" if low <= 0 <= high else sure
    return f"{said}{fixed(r, sign=True)} {between(low, high, sign=True)}: {end}."


def write_report(
    path: Path,
    table: pd.DataFrame,
    shown: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    seeds: int,
) -> None:
    """Write the report of the networks in ``table`` to ``path``."""
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
            f"faithful. Bars are {PERCENT} intervals; the grey line is a random ranking; crosses are networks left "
            "out.",
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
