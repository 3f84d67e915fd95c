"""Regularizers as a skorch callback."""

from collections.abc import Callable
from typing import Any

from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.utils import to_tensor
from torch import nn

from captum_alignment.training._regularizers import Regularizer, check_factor


class SkorchRegularization(Callback):
    """Adds the gradient of a regularizer's term to that of every training batch of a skorch net.

    ``NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, callbacks=[SkorchRegularization(regularizer)])``: the
    module returns scores. skorch calls back after its own backward pass, so the term has a backward pass of its own,
    whose gradients add up. Callbacks that change gradients, such as clipping, come later in the list. The history
    records the term of each batch under the regularizer's ``name``, and the mean norm of its input gradients as
    ``<name>_gradient_norm``; the loss in the history is the net's own.

    Args:
        regularizer: e.g. `LocalLipschitz`.
        schedule: maps the number of training batches seen so far to a factor >= 0 on the term.
        unpack: maps a batch, on the net's device, to ``(inputs, target, *extras)``; by default the batch is such a
            tuple or list.

    Raises:
        TypeError: not a regularizer; a batch of the wrong kind.
        ValueError: a term that is NaN or infinite; a classifier whose module returns probabilities.

    >>> from captum_alignment.training import LocalLipschitz
    >>> callback = SkorchRegularization(LocalLipschitz(0.1))
    """

    def __init__(
        self,
        regularizer: Regularizer,
        *,
        schedule: Callable[[int], float] | None = None,
        unpack: Callable[[Any], tuple[Any, ...]] | None = None,
    ):
        self.regularizer = regularizer
        self.schedule = schedule
        self.unpack = unpack

    def initialize(self) -> "SkorchRegularization":
        if not isinstance(self.regularizer, Regularizer):
            raise TypeError(
                f"regularizer: got {type(self.regularizer).__name__}, expected a Regularizer such as LocalLipschitz"
            )
        self.batches_ = 0
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        if isinstance(net, NeuralNetClassifier) and isinstance(net.criterion_, nn.NLLLoss):
            raise ValueError(
                "criterion: got NLLLoss, with which the module returns probabilities; "
                "expected a module that returns scores, and criterion=torch.nn.CrossEntropyLoss"
            )

    def on_grad_computed(  # pyright: ignore[reportIncompatibleMethodOverride] - skorch passes these by name
        self,
        net: NeuralNet,
        named_parameters: Any,  # noqa: ARG002
        batch: Any = None,
        training: bool = False,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        factor = check_factor(self.schedule(self.batches_), "schedule") if self.schedule else 1.0
        if not training or factor * self.regularizer.weight == 0:
            return
        inputs, *rest = self._unpacked(to_tensor(batch, device=net.device))
        term = factor * self.regularizer(net.module_, inputs, *rest)
        if not term.isfinite():
            raise ValueError(
                f"{self.regularizer.name}: the term is {term.item()} at batch {self.batches_}; expected finite values "
                "(smaller weight, or a schedule that warms up)"
            )
        term.backward()
        net.history.record_batch(self.regularizer.name, term.item())
        if self.regularizer.gradient_norm is not None:
            net.history.record_batch(f"{self.regularizer.name}_gradient_norm", self.regularizer.gradient_norm.item())

    def on_batch_end(self, net: NeuralNet, batch: Any = None, training: Any = False, **kwargs: Any) -> None:  # noqa: ARG002
        self.batches_ += bool(training)

    def _unpacked(self, batch: Any) -> tuple[Any, ...]:
        unpacked = batch if self.unpack is None else self.unpack(batch)
        if not isinstance(unpacked, (tuple, list)) or len(unpacked) < 2:
            raise TypeError(
                f"batch: got {type(unpacked).__name__}, expected (inputs, target, ...); say where they are, "
                "e.g. unpack=lambda batch: (batch[0]['image'], batch[1])"
            )
        inputs, *rest = unpacked
        return (tuple(inputs) if isinstance(inputs, list) else inputs, *rest)
