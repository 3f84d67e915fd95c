"""Everything that is measured on one batch of images."""

import warnings
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import LinearAnalysis, homogeneous_decomposition, linearity_profile
from captum_alignment.study.evaluation._columns import BACK, BIAS, BY_ATTACK, FORWARD, INPUT, RESIDUAL
from captum_alignment.study.evaluation._config import EvaluationConfig


def measure(model: Any, images: Tensor, config: EvaluationConfig) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """One row per image (N, C, H, W), and its maps on the CPU, shaped like the images.

    Returns:
        A table: prediction, the scalars of `linear_analysis`, distance (the smallest, refined; inf where no attack
        succeeded), attack (whose it is), distance_<attack> (verified, unrefined), and what `explain` adds.
        The maps: gradient, binarized_gradient, adversarial.
    """
    analysis = linear_analysis(model, images, norm=config.norm, candidates=config.candidates)
    with warnings.catch_warnings():
        # Of every sample the column ``reason`` says it.
        warnings.filterwarnings("ignore", "no adversarial for|the distance of", UserWarning)
        found = adversarial_distance(model, images, attacks=config.attacks, norm=config.norm, bounds=config.bounds)
    distances = found.to_dataframe().rename(columns={name: f"{BY_ATTACK}{name}" for name in found.names})
    explained = explain(model, images, analysis, found.adversarials, norm=config.norm)
    table = pd.concat([analysis.to_dataframe(), distances, explained], axis=1).rename(columns={"target": "prediction"})
    maps = {
        "gradient": analysis.gradient,
        "binarized_gradient": analysis.binarized_gradient,
        "adversarial": found.adversarials,
    }
    return table, {name: tensor.detach().cpu() for name, tensor in maps.items()}


@torch.no_grad()
def usable_scores(model: Any, images: Tensor) -> Tensor:
    """Which images (N,) have scores that mean something; NaN and +inf do not, -inf is a masked class."""
    scores = model(images.clone()).reshape(len(images), -1)  # its first operation may work in place
    return ~(scores.isnan() | (scores == torch.inf)).any(1)


def explain(
    model: Any, inputs: Tensor, analysis: LinearAnalysis[Any], adversarials: Tensor, *, norm: float = 2
) -> pd.DataFrame:
    """One row per sample of what explains the gap between alpha, rho~ and rho.

    Returns:
        input_term, <x, ∇Psi†> of the margin Psi† over ``rival``; bias:<name>, the contribution of every additive term;
        relative_residual, what these leave of the margin, relative to the sum of their sizes. deviation, the mean
        distance of the margin from the straight line along the step to the linearized boundary (t = 0 to 1), and
        adversarial_deviation along the way to the adversarial. margin:<t> and adversarial_margin:<t>, the two profiles
        relative to t = 0. NaN where there is no such step, or no adversarial.
    """
    terms = homogeneous_decomposition(model, inputs, analysis.target, of="margin", rival=analysis.rival)
    profile = linearity_profile(model, inputs, norm=norm, adversarials=adversarials, analysis=analysis)
    columns = {INPUT: terms.input}
    columns |= {f"{BIAS}{name}": term for name, term in terms.by_parameter.items()}
    columns |= {RESIDUAL: terms.relative_residual}
    columns |= {name: getattr(profile, name) for name in ("deviation", "adversarial_deviation")}
    for prefix, margins in ((FORWARD, profile.margin), (BACK, profile.adversarial_margin)):
        columns |= {f"{prefix}{t:g}": margins[:, k] for k, t in enumerate(profile.t.tolist()) if k}
    return pd.DataFrame({name: column.detach().cpu().numpy() for name, column in columns.items()})
