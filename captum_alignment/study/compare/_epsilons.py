"""The sizes of perturbations at which robust accuracy is tabulated: of one norm the same in every report."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

#: By the norm of a run, as its manifest has it.
DEFAULTS: Mapping[str, tuple[float, ...]] = {
    "1": (1.0, 2.0, 5.0, 10.0, 20.0),
    "2": (0.1, 0.25, 0.5, 1.0, 2.0),
    "inf": (1 / 255, 2 / 255, 4 / 255, 8 / 255, 0.1, 0.3),
}


def epsilon(text: str) -> float:
    """A size as ``0.5`` or ``8/255``.

    Raises:
        ValueError: anything else.
    """
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"epsilons: got {text!r}, expected sizes such as 0.5 or 8/255") from error


def checked(epsilons: Sequence[float] | None, config: Mapping[str, Any]) -> tuple[float, ...]:
    """The sizes to tabulate for runs of the configuration ``config``, ascending; None: those of its norm.

    Raises:
        ValueError: sizes that are not positive and finite, or farther than any two images are apart.
    """
    norm = str(config.get("norm", "2"))
    if epsilons is None:
        return DEFAULTS.get(norm, DEFAULTS["2"])
    low, high = config.get("bounds", (0, 1))
    size = math.prod(config.get("shape", ()) or (1,)) if "shape" in config else math.inf
    farthest = (high - low) * (size ** (1 / float(norm)) if norm != "inf" else 1)
    for eps in epsilons:
        if not (math.isfinite(eps) and eps > 0):
            raise ValueError(f"epsilons: got {eps:g}, expected positive finite sizes, such as 0.5 or 8/255")
        if eps > farthest:
            hint = f"; did you mean {eps:g}/255?" if eps <= 255 * farthest else ""
            raise ValueError(f"epsilons: got {eps:g}, but no two images are farther apart than {farthest:.4g}{hint}")
    return tuple(sorted({*map(float, epsilons)}))


def as_text(eps: float) -> str:
    """A size as people write it: 8/255 where a decimal number would be long."""
    steps = eps * 255
    short = f"{eps:g}"
    return f"{round(steps)}/255" if len(short) > 4 and steps and abs(steps - round(steps)) < 1e-6 else short
