"""Numbers and names as a reader expects them."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd


def number(value: Any) -> str:
    """Three significant digits; ∞ for infinities, a dash for NaN."""
    return _special(value) or _minus(f"{float(value):#.3g}".rstrip("."))


def fixed(value: Any, digits: int = 2, *, sign: bool = False) -> str:
    """A number with that many decimals; ∞ for infinities, a dash for NaN."""
    return _special(value) or _minus(f"{float(value):{'+' if sign else ''}.{digits}f}")


def p_value(value: Any) -> str:
    """Three decimals, or that it is smaller."""
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def counted(n: int, what: str) -> str:
    """How many of ``what``, which is said in the plural unless it is one."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def between(low: Any, high: Any, digits: int = 2, *, sign: bool = False) -> str:
    """An interval in brackets."""
    return f"({fixed(low, digits, sign=sign)} to {fixed(high, digits, sign=sign)})"


def short_percent(value: Any) -> str:
    """A round share in percent, without the decimals that it does not need."""
    return f"{100 * value:g} %"


def setting(value: Any) -> str:
    """A value of a configuration, as the command line takes it; a list is separated by commas."""
    if isinstance(value, list):
        return ", ".join(map(setting, value))
    if value is None:
        return "all"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _special(value: Any) -> str:
    if math.isnan(value):
        return "–"
    if math.isfinite(value):
        return ""
    return "∞" if value > 0 else "−∞"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def class_name(classes: Sequence[str] | None, index: Any) -> str:
    """The name of a class, its number where it has none, a dash where there is no class."""
    if pd.isna(index):
        return "–"
    known = classes is not None and 0 <= int(index) < len(classes)
    return classes[int(index)] if classes is not None and known else str(int(index))
