"""One tiny real study for the whole folder."""

from pathlib import Path

import pytest
import torch

TINY = ["--strengths", "0", "0.01", "--epochs", "8", "--train-size", "400", "--eval-size", "16"]
TINY += ["--attacks", "gradient", "ddn", "--seeds", "1"]


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
