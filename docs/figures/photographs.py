"""The picture of the photographs in the story: ``python docs/figures/photographs.py RUN``, of an `evaluate` run."""

import sys
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt


def main(run: str) -> None:
    records = pd.read_parquet(Path(run) / "records.parquet")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), dpi=120, layout="constrained")
    for axis, (column, name) in zip(axes, {"linearized_robustness": "ρ̃", "alignment": "α"}.items(), strict=True):
        correlation = records["distance"].corr(records[column], method="spearman")
        axis.scatter(records["distance"], records[column], s=9)
        axis.set(xlabel="ρ, distance to the nearest adversarial found", ylabel=name)
        axis.set_title(f"rank correlation {correlation:.2f}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axline((0, 0), slope=1, lw=0.5, color="gray")
    figure.savefig(Path(__file__).parent / "photographs.png")


if __name__ == "__main__":
    main(sys.argv[1])
