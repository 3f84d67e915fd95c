"""The only module that imports Captum's private names; a test pins them."""

from collections.abc import Callable
from typing import Any, TypeVar

import captum.log
from captum.attr import GradientAttribution

__all__ = ["GradientAttribution", "log_usage"]

Function = TypeVar("Function", bound=Callable[..., Any])


def log_usage() -> Callable[[Function], Function]:
    """Captum's decorator, which it binds at import time: type checkers cannot see it, and lose what it decorates."""
    return captum.log.log_usage()  # pyright: ignore[reportAttributeAccessIssue]
