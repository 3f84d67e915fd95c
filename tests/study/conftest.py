"""One tiny real study for the whole folder, and records without training for what needs only numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

TINY = ["--strengths", "0", "0.01", "--epochs", "8", "--train-size", "400", "--eval-size", "16"]
TINY += ["--attacks", "gradient", "ddn"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory) -> Path:
    """The output folder of a finished study of two models on the digits, in a folder whose name is markup."""
    from captum_alignment.study.cli import main

    out = tmp_path_factory.mktemp("study") / "<b>tiny & small"
    assert main(["study", "--out", str(out), *TINY]) == 0
    return out


def make_records(strengths=(0.0, 0.1, 1.0, 10.0), seeds=(0,), n=60, *, accuracy=None, seed=0) -> pd.DataFrame:
    """Records of models whose robustness, alignment and linearity grow with the strength.

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
                        "model": f"strength-{strength:g}_seed-{training_seed}",
                        "strength": strength,
                        "training_seed": training_seed,
                        "sample": np.arange(n),
                        "label": 0,
                        "prediction": np.where(correct, 0, 1),
                        "alignment": alignment,
                        "null": 0.4,
                        "excess": alignment - 0.4,
                        "rank": np.minimum(0.5 + 0.1 * s + 0.01 * base, 1),
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
