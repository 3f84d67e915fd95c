"""The only module that imports Captum's private names; a test pins them."""

from captum._utils.common import _run_forward as run_forward
from captum.attr import GradientAttribution
from captum.log import log_usage

__all__ = ["GradientAttribution", "log_usage", "run_forward"]
