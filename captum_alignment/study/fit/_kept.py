"""A network that is trained once and kept."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from captum_alignment.study.fit._config import Retraining
from captum_alignment.study.fit._fit import fit_fresh
from captum_alignment.study.load import Split
from captum_alignment.study.store import read_weights

#: Not one of the seeds of the grid, whose networks would begin where the explained one began.
SEED = 2**31 - 1


def trained(
    make: Callable[[], nn.Module], kept: Path, train: Split, retraining: Retraining, *, device: torch.device
) -> nn.Module:
    """The network of the weights ``kept``; where there are none, one that is trained as the cells are.

    Raises:
        ValueError: weights of another network, or a training that diverged.
    """
    if kept.is_file():
        network = make()
        try:
            network.load_state_dict(read_weights(kept))
        except Exception as error:
            raise ValueError(f"{kept}: holds no weights of this network; use a new folder") from error
        return network.eval()
    return fit_fresh(make, train, retraining, seed=SEED, device=device, name="the network that is to be explained")
