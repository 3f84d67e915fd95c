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
    from captum_alignment.study._cli import main

    out = tmp_path_factory.mktemp("study") / "<b>tiny & small"
    assert main(["study", "--out", str(out), *TINY]) == 0
    return out


def make_records(strengths=(0.0, 0.1, 1.0, 10.0), seeds=(0,), n=60, *, accuracy=None, seed=0) -> pd.DataFrame:
    """Records of models whose robustness and alignment grow with the strength and agree sample by sample."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.5, 1.5, n)
    frames = []
    for s, strength in enumerate(strengths):
        for training_seed in seeds:
            distance = base * (1 + 0.3 * s) + rng.normal(0, 0.01, n)
            alignment = distance + rng.normal(0, 0.01, n)
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
                        "binarized_alignment": 0.9 * distance,
                        "linearized_robustness": 1.05 * distance,
                        "distance": distance,
                        "distance_gradient": 1.2 * distance,
                        "distance_ddn": 1.01 * distance,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)
