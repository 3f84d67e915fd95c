"""Per-sample metrics, called like `captum.metrics`: functions that return a tensor (N,) or named tensors (N,).

`RobustnessMetric` accumulates them over batches as torchmetrics does; it needs ``captum-alignment[study]``.
"""

from typing import TYPE_CHECKING

from captum_alignment._core._statistics import LEVEL, median_interval
from captum_alignment._optional import on_first_use
from captum_alignment.metrics._alignment import (
    Alignment,
    AlignmentNull,
    alignment,
    alignment_null,
    alignment_null_of_maps,
)
from captum_alignment.metrics._deletion import DeletionCurve, deletion_curve
from captum_alignment.metrics._direction_gap import DirectionGap, direction_gap
from captum_alignment.metrics._exchangeability import ExchangeabilityTest, exchangeability_test
from captum_alignment.metrics._homogeneous_decomposition import HomogeneousDecomposition, homogeneous_decomposition
from captum_alignment.metrics._linear_analysis import LinearAnalysis, linear_analysis
from captum_alignment.metrics._linear_region import LinearRegion, linear_region
from captum_alignment.metrics._linearity_profile import LinearityProfile, linearity_profile
from captum_alignment.metrics._localization import pointing_game, relevance_mass_accuracy
from captum_alignment.metrics._randomization import RandomizationCheck, randomization_check
from captum_alignment.metrics._rank_correlation import rank_correlation
from captum_alignment.metrics._removal import remove_features

if TYPE_CHECKING:
    from captum_alignment.metrics._robustness_metric import RobustnessMetric

__all__ = [
    "LEVEL",
    "Alignment",
    "AlignmentNull",
    "DeletionCurve",
    "DirectionGap",
    "ExchangeabilityTest",
    "HomogeneousDecomposition",
    "LinearAnalysis",
    "LinearRegion",
    "LinearityProfile",
    "RandomizationCheck",
    "RobustnessMetric",
    "alignment",
    "alignment_null",
    "alignment_null_of_maps",
    "deletion_curve",
    "direction_gap",
    "exchangeability_test",
    "homogeneous_decomposition",
    "linear_analysis",
    "linear_region",
    "linearity_profile",
    "median_interval",
    "pointing_game",
    "randomization_check",
    "rank_correlation",
    "relevance_mass_accuracy",
    "remove_features",
]

__getattr__, __dir__ = on_first_use(
    __name__, {"_robustness_metric": ["RobustnessMetric"]}, needs={"_robustness_metric": "study"}
)
