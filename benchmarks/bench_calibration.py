"""How often do intervals miss the true value, verdicts decide where nothing is, and find what is there?

The tables of docs/science/verdicts.md; the argument is the number of trials, half as many for power and for each cell
of the second.
"""

import math
import sys

import numpy as np

from captum_alignment.study.page import spearman_interval
from tests.calibration import KINDS

TRIALS = 400
SIZES, CORRELATIONS = (20, 50, 100, 200, 500), (0.0, 0.3, 0.6, 0.9, 0.97)


def missed(n: int, rank_correlation: float, trials: int, rng: np.random.Generator) -> float:
    """How often the interval of ``n`` normal pairs misses their rank correlation."""
    r = 2 * math.sin(math.pi / 6 * rank_correlation)  # of the values
    misses = 0
    for _ in range(trials):
        a, other = rng.standard_normal((2, n))
        low, high = spearman_interval(a, r * a + math.sqrt(1 - r * r) * other)
        misses += not low <= rank_correlation <= high
    return misses / trials


def main():
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    print(f"{trials} trials, half as many for power\n\n| what | error | power |\n|---|---:|---:|")
    for kind in KINDS:
        power = kind.power(trials // 2)
        print(f"| {kind.name} | {kind.error(trials):.1%} | {'' if math.isnan(power) else f'{power:.0%}'} |", flush=True)
    rng = np.random.default_rng(0)
    print("\n| n |" + "".join(f" r = {r:g} |" for r in CORRELATIONS) + "\n|---:|" + "---:|" * len(CORRELATIONS))
    for n in SIZES:
        cells = (f" {missed(n, r, trials // 2, rng):.1%} |" for r in CORRELATIONS)
        print(f"| {n} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
