"""Per-sample metrics, called like `captum.metrics`: functions that return a tensor (N,) or named tensors (N,)."""

from captum_alignment.metrics._alignment import Alignment, AlignmentNull, alignment, alignment_null
from captum_alignment.metrics._homogeneous_decomposition import HomogeneousDecomposition, homogeneous_decomposition
from captum_alignment.metrics._linear_analysis import LinearAnalysis, linear_analysis
from captum_alignment.metrics._linearity_profile import LinearityProfile, linearity_profile

__all__ = [
    "Alignment",
    "AlignmentNull",
    "HomogeneousDecomposition",
    "LinearAnalysis",
    "LinearityProfile",
    "alignment",
    "alignment_null",
    "homogeneous_decomposition",
    "linear_analysis",
    "linearity_profile",
]
