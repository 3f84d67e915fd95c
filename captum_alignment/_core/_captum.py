"""The only module that imports Captum's private names; a test pins them."""

from collections.abc import Callable
from typing import Any

import captum.log
from captum.attr import GradientAttribution

__all__ = ["GradientAttribution", "log_usage"]

#: Captum binds it at import time, which type checkers cannot see.
log_usage: Callable[..., Any] = captum.log.log_usage  # pyright: ignore[reportAttributeAccessIssue]
