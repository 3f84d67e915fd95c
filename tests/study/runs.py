"""Runs without a model, for what needs only numbers."""

from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.evaluation import Run

MEASURED = (
    *("alignment", "null", "excess", "rank", "binarized_alignment", "linearized_robustness", "bias", "noncollinearity"),
    *("bound", "direction_gap", "bias_gap", "distance", "distance_ddn", "distance_gradient", "input_term"),
    *("bias:0.bias", "bias:2.bias", "relative_residual", "deviation", "adversarial_deviation"),
    *("margin:0.5", "margin:1", "adversarial_margin:0.5", "adversarial_margin:1"),
)


def make_run(
    name: str = "mlp", n: int = 40, *, seed: int = 0, scale: float = 1.0, count: int = 3, **config: Any
) -> Run:
    """A run of ``n`` samples of ``count`` classes.

    Robustness is about ``scale``; every tenth distance is infinite, every fifth label is not the prediction.
    """
    rng = np.random.default_rng(seed)
    distance = scale * rng.gamma(4, 0.25, n)
    linearized = distance * rng.uniform(0.9, 1.2, n)
    binarized = 0.9 * linearized
    alignment = distance * rng.uniform(0.6, 1.1, n)
    null = 0.3 * scale * rng.uniform(0.5, 1.5, n)
    prediction = rng.integers(0, count, n)
    bend = rng.uniform(0, 0.3, n)
    records = pd.DataFrame(
        {
            "sample": np.arange(n),
            "id": pd.Series([f"image {i}" for i in range(n)], dtype="string"),
            "label": pd.Series(np.where(np.arange(n) % 5, prediction, (prediction + 1) % count), dtype="Int64"),
            "prediction": pd.Series(prediction, dtype="Int64"),
            "rival": pd.Series((prediction + 1) % count, dtype="Int64"),
            "error": pd.Series([pd.NA] * n, dtype="string"),
            "alignment": alignment,
            "null": null,
            "excess": alignment - null,
            "rank": rng.uniform(0.5, 1, n),
            "binarized_alignment": binarized,
            "linearized_robustness": linearized,
            "bias": linearized - binarized,
            "noncollinearity": 3 * distance,
            "bound": 5 * distance,
            "direction_gap": binarized - alignment,
            "bias_gap": linearized - binarized,
            "distance": np.where(np.arange(n) % 10 == 9, np.inf, distance),
            "attack": "ddn",
            "distance_ddn": np.where(np.arange(n) % 10 == 9, np.inf, 1.02 * distance),
            "distance_gradient": 1.5 * distance,
            "input_term": 3 * binarized,
            "bias:0.bias": rng.normal(0, 0.5, n) * distance,
            "bias:2.bias": rng.normal(0, 0.1, n) * distance,
            "relative_residual": 1e-7,
            "deviation": bend / 3,
            "adversarial_deviation": 0.1,
            "margin:0.5": 0.5 - bend,
            "margin:1": -bend,
            "adversarial_margin:0.5": 0.6,
            "adversarial_margin:1": 0.0,
        }
    )
    defaults = {
        "model": "mlp.py:make",
        "dataset": "digits",
        "norm": 2.0,
        "attacks": ["ddn", "gradient"],
        "classes": None,
    }
    manifest = {"config": {**defaults, **config}, "versions": {"torch": "2.9"}, "weights_hash": "ab12"}
    return Run(name, manifest, records, make_gallery(rng, n))


def make_gallery(rng: np.random.Generator, n: int, each: int = 2, channels: int = 1, size: int = 8) -> dict[str, Any]:
    """The first and the last samples as the least and the most robust ones."""
    each = min(each, n)
    shape = (2 * each, channels, size, size)
    image = rng.uniform(0, 1, shape).astype(np.float32)
    return {
        "kind": np.array(["least"] * each + ["most"] * each),
        "sample": np.concatenate([np.arange(each), np.arange(n - each, n)]),
        "image": image,
        "gradient": rng.normal(0, 1, shape).astype(np.float32),
        "binarized_gradient": rng.normal(0, 1, shape).astype(np.float32),
        "adversarial": (image + rng.normal(0, 0.1, shape)).clip(0, 1).astype(np.float32),
    }


def frame(run: Run) -> pd.DataFrame:
    """The records of a made-up run."""
    assert isinstance(run.records, pd.DataFrame)
    return run.records


def changed(run: Run, **columns: Any) -> Run:
    """``run`` with other columns in its records."""
    return Run(run.name, run.manifest, frame(run).assign(**columns), run.gallery)


def with_errors(run: Run, failed: Any, reason: str = "OSError: cut short") -> Run:
    """``run`` with the samples ``failed`` (a mask) unmeasured."""
    records = frame(run).copy()
    records.loc[failed, [*MEASURED]] = np.nan
    records.loc[failed, ["label", "prediction", "rival", "attack"]] = pd.NA
    records.loc[failed, "error"] = reason
    return Run(run.name, run.manifest, records, run.gallery)
