"""Training for robustness: penalties, configured regularizers, and what adds them to a training loop.

The same term in three forms. A pure function, on a graph that you have built:

>>> import torch
>>> from captum_alignment.training import LocalLipschitz, input_gradient_penalty
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
>>> images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
>>> images.requires_grad_(True).requires_grad
True
>>> scores = model(images)
>>> penalty = input_gradient_penalty(scores, images, labels)
>>> penalty.shape
torch.Size([8])
>>> loss = torch.nn.functional.cross_entropy(scores, labels) + 1e-3 * penalty.mean()
>>> loss.backward()

A configured object that runs its own forward pass, for any loop:

>>> regularizer = LocalLipschitz(1e-3)
>>> term = regularizer(model, images, labels)
>>> torch.allclose(term, 1e-3 * penalty.mean())
True

And a Lightning callback that adds it to a module's own loss (needs lightning, ``captum-alignment[study]``)::

    Trainer(callbacks=[LipschitzRegularization(1e-3)]).fit(module, loader)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_alignment.training._penalties import input_gradient_penalty
from captum_alignment.training._regularizers import LocalLipschitz, Regularizer

if TYPE_CHECKING:
    from captum_alignment.training._lightning import LipschitzRegularization, RegularizationCallback

__all__ = [
    "LipschitzRegularization",
    "LocalLipschitz",
    "RegularizationCallback",
    "Regularizer",
    "input_gradient_penalty",
]

_CALLBACKS = {
    "LipschitzRegularization": "captum_alignment.training._lightning",
    "RegularizationCallback": "captum_alignment.training._lightning",
}


def __getattr__(name: str) -> Any:
    if name not in _CALLBACKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_CALLBACKS[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("captum_alignment"):
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'captum-alignment[study]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
