"""How often do intervals miss the true value, verdicts decide where nothing is, and find what is there?

The table of docs/science/verdicts.md; the argument is the number of trials, half as many for power.
"""

import math
import sys

from tests.calibration import KINDS

TRIALS = 400


def main():
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    print(f"{trials} trials, half as many for power\n\n| what | error | power |\n|---|---:|---:|")
    for kind in KINDS:
        power = kind.power(trials // 2)
        print(f"| {kind.name} | {kind.error(trials):.1%} | {'' if math.isnan(power) else f'{power:.0%}'} |", flush=True)


if __name__ == "__main__":
    main()
