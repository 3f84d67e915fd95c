"""Adversarial robustness, saliency alignment and what links them, for Captum and Foolbox users.

How far is the decision boundary, does the saliency map show the input, and where must the two agree?

>>> import torch
>>> from captum_alignment import adversarial_distance, linear_analysis
>>> _ = torch.manual_seed(0)
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
>>> x = torch.rand(8, 4)
>>> analysis = linear_analysis(net, x)  # alignment, linearized robustness, and what lies between them
>>> rho = adversarial_distance(net, x).distance  # the distance that attacks find, inf where they all fail
>>> analysis.linearized_robustness.shape == rho.shape
True

`captum_alignment.attr` holds attributions for Captum, `metrics` per-sample metrics, `robust` distances and attacks for
Foolbox, `training` regularizers and callbacks, `study` the application.
"""

import os
from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment._core._arguments import Shared
    from captum_alignment.attr import LinearizedRobustness
    from captum_alignment.metrics import Alignment, alignment, linear_analysis
    from captum_alignment.robust import adversarial_distance

__version__ = "0.1.0"

__all__ = ["Alignment", "LinearizedRobustness", "Shared", "adversarial_distance", "alignment", "linear_analysis"]

# Foolbox imports GitPython, which refuses to load where there is no git executable unless told to be quiet.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

# Loaded on first use, so that the command line answers before torch is there.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_core._arguments": ["Shared"],
        "attr": ["LinearizedRobustness"],
        "metrics": ["Alignment", "alignment", "linear_analysis"],
        "robust": ["adversarial_distance"],
        "study": [],
        "training": [],
    },
)
