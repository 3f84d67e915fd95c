"""Runs without a model, for what needs only numbers."""

from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.cohort._cohort import Cohort, make_cohorts
from captum_alignment.study.compare import COORDINATES
from captum_alignment.study.evaluation import BACK, BIAS, BY_ATTACK, COLUMNS, FORWARD, Run, about
from captum_alignment.study.evaluation._columns import place
from captum_alignment.study.evaluation._records import typed

#: The members of each family of columns.
MEMBERS = {BY_ATTACK: ("ddn", "gradient"), BIAS: ("0.bias", "2.bias"), FORWARD: ("0.5", "1"), BACK: ("0.5", "1")}
#: Attributions are compared where somebody asks for it.
_ASKED_FOR = (
    "alignment",
    "null",
    "excess",
    "rank",
    "deletion",
    "randomized",
    "agreement",
    "sensitivity",
    "mass",
    "pointing",
    "seconds",
    "failed",
)
MEMBERS |= {f"{name}:": () for name in _ASKED_FOR}
#: Every column of the schema, families by their members.
NAMES = tuple(
    about(field, "prefix") + member if member else field.name
    for field in COLUMNS
    for member in MEMBERS.get(about(field, "prefix"), ("",))
)
#: What a sample lacks that could not be measured.
MEASURED = tuple(name for name in NAMES if name not in ("sample", "id", "error"))
#: The values of columns that say nothing else.
_DEFAULTS = {"int64": 7, "double": 0.1, "large_string": None}


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
    given = {
        "sample": np.arange(n),
        "id": [f"image {i}" for i in range(n)],
        "label": np.where(np.arange(n) % 5, prediction, (prediction + 1) % count),
        "prediction": prediction,
        "rival": (prediction + 1) % count,
        "alignment": alignment,
        "null": null,
        "excess": alignment - null,
        "rank": rng.uniform(0.5, 1, n),
        "map_null": rng.permutation(null),
        "class_excess": rng.normal(0, 0.1, n),
        "class_variance": 0.01,
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
        "lower_bound": 0.6 * distance,
        "linear_region": 0.01 * distance,
        "lemma_1": 0.0,
        "input_term": 3 * binarized,
        "bias:0.bias": rng.normal(0, 0.5, n) * distance,
        "bias:2.bias": rng.normal(0, 0.1, n) * distance,
        "relative_residual": 1e-7,
        "deviation": bend / 3,
        "margin:0.5": 0.5 - bend,
        "margin:1": -bend,
        "adversarial_margin:0.5": 0.6,
        "adversarial_margin:1": 0.0,
    }
    rest = {name: _DEFAULTS[str(COLUMNS.field(place(name)).type)] for name in NAMES if name not in given}
    records = typed(pd.DataFrame({**given, **rest}))
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
    records.loc[failed, [*MEASURED]] = pd.NA
    records.loc[failed, "error"] = reason
    return Run(run.name, run.manifest, records, run.gallery)


def make_records(
    strengths=(0.0, 0.1, 1.0, 10.0), seeds=(0,), n=60, *, accuracy=None, seed=0, training="lipschitz"
) -> pd.DataFrame:
    """Records of the networks of a study whose robustness, alignment and linearity grow with the strength.

    Robustness and alignment agree sample by sample, and the better the larger the strength.
    """
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.5, 1.5, n)
    frames = []
    for s, strength in enumerate(strengths):
        for training_seed in seeds:
            distance = base * (1 + 0.3 * s) + rng.normal(0, 0.01, n)
            alignment = distance + rng.normal(0, max(0.2 / 2**s, 0.01), n)
            linearized, binarized = 1.05 * distance, 0.9 * distance
            terms = {"input_term": 2 * binarized, "bias:0.bias": 0.5 * distance, "bias:own (add)": -0.2 * distance}
            below = (0.2 + 0.1 * base) / (s + 1)  # of the margin at the end of the step
            correct = np.arange(n) < n * (1.0 if accuracy is None else accuracy[s])
            frames.append(
                pd.DataFrame(
                    {
                        "model": f"{training}-{strength:g}_seed-{training_seed}",
                        "training": training if strength else "standard",
                        "strength": strength,
                        "training_seed": training_seed,
                        "sample": np.arange(n),
                        "label": 0,
                        "prediction": np.where(correct, 0, 1),
                        "alignment": alignment,
                        "null": 0.4,
                        "excess": alignment - 0.4,
                        "rank": np.minimum(0.5 + 0.1 * s + 0.01 * base, 1),
                        "map_null": 0.4,
                        "class_excess": 0.1 * base,
                        "class_variance": 1.0,
                        "binarized_alignment": binarized,
                        "linearized_robustness": linearized,
                        "direction_gap": binarized - alignment,
                        "bias_gap": linearized - binarized,
                        "bound": 4 * distance,
                        "distance": distance,
                        "distance_gradient": 1.2 * distance,
                        "distance_ddn": 1.01 * distance,
                        **terms,
                        "relative_residual": 1e-7,
                        "deviation": below / 3,
                        "adversarial_deviation": 0.1,
                        **{"margin:0.5": 0.5 - below / 2, "margin:1": -below},
                        **{"adversarial_margin:0.5": 0.6, "adversarial_margin:1": 0.0},
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def runs_of(records: pd.DataFrame) -> list[Run]:
    """The runs of the study that `make_records` made up."""
    runs = []
    for name, frame in records.groupby("model", sort=False):
        training, strength, seed = frame[[*COORDINATES]].iloc[0]
        config = {"dataset": "digits", "norm": 2.0, "attacks": ["ddn", "gradient"], "training": training}
        manifest = {"config": {**config, "strength": float(strength), "training_seed": int(seed)}}
        runs.append(Run(str(name), manifest, frame.drop(columns=["model", *COORDINATES]).reset_index(drop=True), {}))
    return runs


def cohort_of(records: pd.DataFrame, training: str = "lipschitz") -> Cohort:
    return make_cohorts(runs_of(records), [training])[0]
