"""Per-sample metrics, called like `captum.metrics`: functions that return a tensor (N,) or named tensors (N,)."""

from captum_alignment.metrics._alignment import Alignment, AlignmentNull, alignment, alignment_null
from captum_alignment.metrics._linear_analysis import LinearAnalysis, linear_analysis

__all__ = ["Alignment", "AlignmentNull", "LinearAnalysis", "alignment", "alignment_null", "linear_analysis"]
