"""Regularizers and adversarial training as skorch callbacks."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.utils import to_tensor
from torch import nn

from captum_alignment._core._inputs import as_tensors
from captum_alignment._core._random import as_generator
from captum_alignment.training._adversarial import AttackName, ChannelBounds, adversarial_examples, check_attack
from captum_alignment.training._batch import Unpack, exchanged, unpacked
from captum_alignment.training._regularizers import Regularizer, check_factor, check_regularizer


class SkorchRegularization(Callback):
    """Adds the gradient of a regularizer's term to that of every training batch of a skorch net.

    ``NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, callbacks=[SkorchRegularization(regularizer)])``: the
    module returns scores, in a `NeuralNetBinaryClassifier` one logit. skorch calls back after its own backward pass, so
    the term has a backward pass of its own, whose gradients add up before any other callback, such as clipping, changes
    them. The history records the term of each batch under the regularizer's ``name`` (that of a second such callback as
    ``<name>_2``), and the mean norm of its input gradients as ``<name>_gradient_norm``; the loss in the history is the
    net's own.

    Args:
        regularizer: e.g. `LocalLipschitz`.
        weight: in place of the regularizer's own; in a grid search ``callbacks__SkorchRegularization__weight``.
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
        weight: float | None = None,
        schedule: Callable[[int], float] | None = None,
        unpack: Unpack | None = None,
    ):
        self.regularizer = regularizer
        self.weight = weight
        self.schedule = schedule
        self.unpack = unpack

    def initialize(self) -> "SkorchRegularization":
        check_regularizer(self.regularizer)
        self.regularizer_ = self.regularizer if self.weight is None else self.regularizer.replaced(weight=self.weight)
        self.name_ = self.regularizer.name
        self.batches_ = 0
        return self

    def set_params(self, **params: Any) -> None:
        """As of scikit-learn, with ``regularizer__weight`` and the like for the regularizer's own arguments."""
        inner = {name: params.pop(name) for name in list(params) if name.startswith("regularizer__")}
        super().set_params(**params)
        if inner:
            changes = {name.removeprefix("regularizer__"): value for name, value in inner.items()}
            self.regularizer = self.regularizer.replaced(**changes)

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        _check_criterion(net)
        # First of all that change gradients; the list that is being gone through stays as it is.
        net.callbacks_ = sorted(net.callbacks_, key=lambda named: not isinstance(named[1], SkorchRegularization))
        ours = [cb for _, cb in net.callbacks_ if isinstance(cb, SkorchRegularization)]
        earlier = [cb.regularizer_.name for cb in ours[: ours.index(self)]].count(self.regularizer_.name)
        self.name_ = self.regularizer_.name + (f"_{earlier + 1}" if earlier else "")

    def on_grad_computed(  # pyright: ignore[reportIncompatibleMethodOverride] - skorch passes these by name
        self,
        net: NeuralNet,
        named_parameters: Any,  # noqa: ARG002
        batch: Any = None,
        training: bool = False,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        factor = check_factor(self.schedule(self.batches_), "schedule") if self.schedule else 1.0
        if not training or factor * self.regularizer_.weight == 0:
            return
        inputs, *rest = unpacked(to_tensor(batch, device=net.device), self.unpack)
        term = factor * self.regularizer_(net.module_, inputs, *rest)
        if not term.isfinite():
            raise ValueError(
                f"{self.name_}: the term is {term.item()} at batch {self.batches_}; expected finite values "
                "(smaller weight, or a schedule that warms up)"
            )
        term.backward()
        net.history.record_batch(self.name_, term.item())
        if self.regularizer_.gradient_norm is not None:
            net.history.record_batch(f"{self.name_}_gradient_norm", self.regularizer_.gradient_norm.item())

    def on_batch_end(self, net: NeuralNet, batch: Any = None, training: Any = False, **kwargs: Any) -> None:  # noqa: ARG002
        self.batches_ += bool(training)


class SkorchAdversarialTraining(Callback):
    """Trains a skorch net, whose module returns scores, on adversarial examples.

    During each training batch the batch's own input tensors hold `adversarial_examples`, and afterwards what they held
    before. The accuracy on clean images is that of the validation split.

    Args:
        epsilon, attack, steps, step_size, random_start, bounds: as of `adversarial_examples`.
        generator: where random starts come from. None is one with a fixed seed, at the start of every training.
        schedule: maps the number of training batches seen so far to a factor >= 0 on epsilon.
        unpack: maps a batch to ``(inputs, target, …)``; it must return the batch's own tensors, not copies.

    Raises:
        TypeError: a batch or an input of the wrong kind.
        ValueError: inputs out of bounds, unknown attack, numbers out of range; a classifier whose module returns
            probabilities.

    Madry et al. (2018).

    >>> callback = SkorchAdversarialTraining(0.5, steps=10)
    """

    def __init__(
        self,
        epsilon: float,
        *,
        attack: AttackName = "pgd-l2",
        steps: int = 20,
        step_size: float | None = None,
        random_start: bool = True,
        bounds: ChannelBounds = (0, 1),
        generator: torch.Generator | None = None,
        schedule: Callable[[int], float] | None = None,
        unpack: Unpack | None = None,
    ):
        self.epsilon, self.steps, self.step_size = epsilon, steps, step_size
        self.attack: AttackName = attack
        self.random_start, self.bounds, self.generator = random_start, bounds, generator
        self.schedule, self.unpack = schedule, unpack

    def initialize(self) -> "SkorchAdversarialTraining":
        check_attack(self.attack, self.epsilon, self.steps, self.step_size)
        self.generator_ = as_generator(self.generator)
        self.batches_ = 0
        self.undo_ = ExitStack()
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        _check_criterion(net)

    def on_batch_begin(self, net: NeuralNet, batch: Any = None, training: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        self.undo_.close()  # skorch ends no batch that has raised
        if not training:
            return
        factor = check_factor(self.schedule(self.batches_), "schedule") if self.schedule else 1.0
        inputs, target, *_ = unpacked(batch, self.unpack)
        tensors = as_tensors(inputs, "batch inputs")
        there: Any = to_tensor((*tensors, target), device=net.device)
        found = adversarial_examples(
            net.module_, tuple(there[:-1]), there[-1],
            attack=self.attack, epsilon=factor * self.epsilon, steps=self.steps, step_size=self.step_size,
            random_start=self.random_start, bounds=self.bounds, generator=self.generator_,
        )  # fmt: skip
        self.undo_.enter_context(exchanged(tensors, [f.to(t.device) for f, t in zip(found, tensors, strict=True)]))

    def on_batch_end(self, net: NeuralNet, batch: Any = None, training: Any = False, **kwargs: Any) -> None:  # noqa: ARG002
        self.undo_.close()
        self.batches_ += bool(training)


def _check_criterion(net: NeuralNet) -> None:
    """A `ValueError` where the module returns probabilities, which have no useful input gradients."""
    if isinstance(net, NeuralNetClassifier) and isinstance(net.criterion_, nn.NLLLoss):
        better = "CrossEntropyLoss"
    elif isinstance(net, NeuralNetBinaryClassifier) and isinstance(net.criterion_, nn.BCELoss):
        better = "BCEWithLogitsLoss"
    else:
        return
    raise ValueError(
        f"criterion: got {type(net.criterion_).__name__}, with which the module returns probabilities; "
        f"expected a module that returns scores, and criterion=torch.nn.{better}"
    )
