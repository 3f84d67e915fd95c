"""Per sample, why robustness and alignment agree or do not: the terms of the margin, and how straight it falls."""

from typing import Any

import pandas as pd
from torch import Tensor

from captum_alignment.metrics import LinearAnalysis, homogeneous_decomposition, linearity_profile

#: Columns of the terms of the margin, in units of the score.
INPUT, RESIDUAL = "input_term", "relative_residual"
#: Prefixes of the columns of every additive term by name, and of the two profiles by the fraction of the way.
BIAS, FORWARD, BACK = "bias:", "margin:", "adversarial_margin:"


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
