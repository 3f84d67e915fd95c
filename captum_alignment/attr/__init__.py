"""Attributions with Captum's interface; they run inside `NoiseTunnel` and `captum.metrics` unchanged."""

from captum_alignment.attr._full_gradient import FullGradient
from captum_alignment.attr._generated import GeneratedAttribution
from captum_alignment.attr._linearized_robustness import LinearizedRobustness

__all__ = ["FullGradient", "GeneratedAttribution", "LinearizedRobustness"]
