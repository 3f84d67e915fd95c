"""What do the names of captum_alignment cost beside the imports of captum and foolbox alone?

Goal: at most 1.1 times.
"""

import subprocess
import sys
from statistics import median

from benchmarks._timing import machine, seconds, table

IMPORTS = {
    "captum.attr, foolbox": "import captum.attr, foolbox",
    "captum_alignment": "from captum_alignment import *",
    "captum_alignment.training": "import captum_alignment.training",
}


def main(rounds: int = 5) -> None:
    times = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            command = [sys.executable, "-W", "ignore", "-c", code]
            times[name].append(seconds(lambda command=command: subprocess.run(command, check=True)))
    least = median(times["captum.attr, foolbox"])
    print(f"## Import ({machine()})\n")
    table(["import", "s", "ratio"], [[name, median(found), median(found) / least] for name, found in times.items()])


if __name__ == "__main__":
    main()
