"""The shortcut for the most common regularization of a Lightning training."""

from typing import Any

from captum_alignment.training._lightning import RegularizationCallback
from captum_alignment.training._penalties import Of
from captum_alignment.training._regularizers import LocalLipschitz, Method


class LipschitzRegularization(RegularizationCallback):
    """Local Lipschitz regularization of a Lightning training: `RegularizationCallback` around `LocalLipschitz`.

    ``Trainer(callbacks=[LipschitzRegularization(0.3)])`` adds 0.3 · mean_i ‖∇ₓ loss_i‖² to the loss of the module's own
    training step and logs it as ``local_lipschitz``. That loss is the mean over the batch of one loss per sample;
    another, such as a sum, needs ``reduction``. ``options`` are those of `RegularizationCallback`.

    >>> callback = LipschitzRegularization(1e-3)
    """

    def __init__(
        self,
        weight: float,
        *,
        of: Of = "loss",
        norm: float = 2,
        squared: bool = True,
        method: Method = "double-backward",
        step: float = 0.01,
        **options: Any,
    ):
        super().__init__(LocalLipschitz(weight, of=of, norm=norm, squared=squared, method=method, step=step), **options)
