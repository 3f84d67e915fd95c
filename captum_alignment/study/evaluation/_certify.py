"""Bounds of rho from below, where a run asks for them and its network allows them."""

import math
import warnings
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from captum_alignment.metrics import linear_region
from captum_alignment.robust import NotPiecewiseLinear, certified_distance
from captum_alignment.study.evaluation._config import EvaluationConfig

#: Columns of the records.
LOWER_BOUND, LINEAR_REGION, LEMMA_1 = "lower_bound", "linear_region", "lemma_1"


def refusal(model: Any, image: Tensor) -> str | None:
    """Why nothing is certified of ``model``, a look at one image (1, C, H, W); None where it can be. Warns of it."""
    try:
        linear_region(model, image)
    except NotPiecewiseLinear as reason:
        warnings.warn(f"certify: nothing is certified of this model; {reason}", stacklevel=2)
        return str(reason)
    except ValueError:  # of this image, and the records will say which
        return None
    return None


def lower_bounds(model: Any, images: Tensor, config: EvaluationConfig) -> pd.DataFrame:
    """One row per image: lower_bound, linear_region and lemma_1; NaN where a network goes another way for an image."""
    bounds = config.bounds if all(map(math.isfinite, config.bounds)) else None
    rows = []
    for image in images.split(1):
        try:
            region = linear_region(model, image, norm=config.norm)
            lower = certified_distance(model, image, norm=config.norm, bounds=bounds, effort=config.certify or "fast")
            row = torch.stack([lower, region.radius, region.applies.double()], 1)[0].tolist()
        except NotPiecewiseLinear:
            row = [math.nan] * 3
        rows.append(row)
    return pd.DataFrame(rows, columns=[LOWER_BOUND, LINEAR_REGION, LEMMA_1])
