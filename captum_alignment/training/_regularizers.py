"""Regularizers: configured terms that are added to a training loss."""

import inspect
import math
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_alignment._core._gradients import for_autograd
from captum_alignment._core._inputs import ForwardFunc, TensorOrTuple, Tensors, as_tensors, check_norm, per_sample_norm
from captum_alignment._core._model import is_quantised, no_gradient
from captum_alignment._core._questions import together
from captum_alignment.training._differences import DifferenceGraph
from captum_alignment.training._distributed import check_reduced, unwrapped
from captum_alignment.training._forward import kept_buffers, scores_of, twice_differentiable
from captum_alignment.training._graph import Count, Graph, loss_gradients
from captum_alignment.training._penalties import Of, check_of, gradient_penalty, gradient_size

Method: TypeAlias = Literal["double-backward", "finite-difference"]


class Regularizer(ABC):
    """A weight times the batch mean of a penalty per sample; a subclass computes the penalty, `penalty`.

    Calling it, ``loss + regularizer(model, inputs, target)``, runs its own forward pass on a detached copy of the
    inputs. That pass draws new dropout masks and leaves every buffer of the model as it is, e.g. the running statistics
    of batch norm. Under `no_grad` and `inference_mode` it returns the value alone.

    Args:
        weight: at least 0.
        method: "double-backward" differentiates the input gradients exactly: attention keeps to its plain kernel, and
            sharded models (FSDP) cannot be used. "finite-difference" does without a second derivative, at the price of
            one more forward pass per gradient, in at least float32 and outside autocast: the value is exact and its
            parameter gradient right up to O(step).
        step: the l_2 length of a finite-difference step in units of the input; 0.01 for inputs in [0, 1].

    Attributes:
        gradient_norm: the mean l_2 norm of the input gradients in the latest term, detached; None before.

    Raises:
        TypeError: weight or step is not a number.
        ValueError: a negative or non-finite weight, a step that is not positive, an unknown method.

    A term of your own is one method:

    >>> class SmallScores(Regularizer):
    ...     def penalty(self, graph, target, *extras):
    ...         return graph.scores.square().sum(1)
    >>> SmallScores(0.1)(torch.nn.Linear(4, 3), torch.rand(8, 4), torch.zeros(8, dtype=torch.long)).ndim
    0
    """

    #: The key under which a training loop logs the term.
    name: ClassVar[str] = "regularizer"

    def __init__(self, weight: float, *, method: Method = "double-backward", step: float = 0.01):
        if method not in get_args(Method):
            raise ValueError(f"method: got {method!r}, expected 'double-backward' or 'finite-difference'")
        self.weight = check_factor(weight, "weight")
        self.method: Method = method
        self.step = check_factor(step, "step")
        if self.step == 0:
            raise ValueError("step: got 0, expected a positive number")
        self.gradient_norm: Tensor | None = None

    def __call__(self, model: ForwardFunc, inputs: TensorOrTuple, target: Any, *extras: Any) -> Tensor:
        """The term, a scalar in at least float32.

        Args:
            model: any callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. Of a
                `DistributedDataParallel` model the module inside is run, so one backward pass must serve the term and a
                loss computed from the model itself.
            inputs: a floating tensor or tuple of tensors (N, ...); never modified.
            target: the class of each sample, as in Captum; None is the predicted class.
            extras: what the penalty needs beyond these.

        Raises:
            TypeError: wrong kinds of arguments; a `DataParallel` model, or a sharded one with double backward.
            ValueError: empty batches, targets out of range, NaN scores, half scores with finite differences; in
                ``backward()``, a term that is the only loss under DDP.
        """
        given, keep_graph = as_tensors(inputs), torch.is_grad_enabled()
        inner = unwrapped(model, twice=self.method == "double-backward")
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(together())
            leaves = tuple(x.detach().requires_grad_() for x in for_autograd(given))
            graph = self._graph(inner, leaves)
            # Gradients are taken outside autocast: https://pytorch.org/docs/stable/notes/amp_examples.html
            stack.enter_context(torch.autocast(leaves[0].device.type, enabled=False))
            penalties = self.penalty(graph, *for_autograd((target, *extras)))
            term = self.weight * (graph.complete(penalties) if keep_graph else penalties).mean()
            self.gradient_norm = graph.gradient_norm()
        if not keep_graph:
            return term.detach()
        check_reduced(term, model)
        return term

    @abstractmethod
    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:
        """The penalty (N,), from ``graph.scores`` (N, K) and from ``graph.gradient(quantity)``, where ``quantity`` maps
        scores to one number (N,) per sample. Written that way it works with both methods.
        """

    def _graph(self, model: Any, leaves: Tensors) -> Graph:
        if self.method == "double-backward":
            with twice_differentiable(model), kept_buffers(model):
                scores = scores_of(model, leaves)
            if not scores.requires_grad or is_quantised(model):
                raise ValueError(no_gradient(model, "model"))
            return Graph(scores, leaves)
        with torch.autocast(leaves[0].device.type, enabled=False):
            return DifferenceGraph(model, leaves, self.step)

    #: Where a subclass that depends on chance draws from.
    generator: torch.Generator | None = None

    #: Whether the penalty follows from the gradient of the training loss alone, so that `from_loss` can be used.
    only_needs_loss: bool = False

    def from_loss(
        self, loss: Tensor, inputs: TensorOrTuple, *, scale: float = 1.0, count: Count | None = None
    ) -> Tensor:
        """The term on the graph of a loss that was computed from ``inputs``: no second forward pass.

        Args:
            loss: ``scale`` times the sum over the batch of one loss per sample, divided by ``count``. That cannot be
                seen from the loss: another reduction (a sum, class weights) changes the weight by a factor.
            inputs: the tensors, requiring grad, that the loss was computed from.
            scale: what the loss was multiplied by, e.g. by a gradient scaler. The term is free of it.
            count: what the sum was divided by, a number, or a tensor (N,) with one for each sample. None is the number
                of samples, for a mean; 1 is for a sum.

        Raises:
            TypeError: the penalty needs more than the gradient of the loss.
            ValueError: the inputs do not require grad, the loss does not depend on them, or an operation in its graph
                cannot be differentiated twice.
        """
        if not self.only_needs_loss:
            raise TypeError(
                f"{self.name}: needs more than the gradient of the loss, expected a call with model and inputs"
            )
        gradients = loss_gradients(loss, as_tensors(inputs), scale=scale, count=count)
        self.gradient_norm = per_sample_norm(tuple(g.detach() for g in gradients), 2).mean()
        return self.weight * self.loss_gradient_penalty(gradients).mean()

    def arguments(self) -> dict[str, Any]:
        """What it was constructed with, by name; a subclass keeps every argument in an attribute of its name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def replaced(self, **changes: Any) -> "Regularizer":
        """A regularizer of the same kind with other arguments."""
        known = self.arguments()
        for name in changes:
            if name not in known:
                raise ValueError(f"{name}: is no argument of {type(self).__name__}, expected one of {', '.join(known)}")
        return type(self)(**{**known, **changes})

    def state_dict(self) -> dict[str, Any]:
        """What the next term depends on besides its arguments: the state of the generator, where there is one."""
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        if self.generator is not None and "generator" in state:
            self.generator.set_state(state["generator"].cpu())

    def loss_gradient_penalty(self, gradients: Tensors) -> Tensor:
        """The penalty (N,), given each sample's loss gradient; defined where ``only_needs_loss``."""
        raise NotImplementedError


class LocalLipschitz(Regularizer):
    """Penalises the local Lipschitz constant of the loss, a score or the margin: weight · mean_i ‖∇ₓ q(x_i)‖².

    The weight multiplies a mean of per-sample penalties and so keeps its meaning when the batch size changes.

    Args:
        weight: at least 0. Inputs in [0, 1] are the usual unit; scaling the inputs by c scales the squared penalty by
            1/c².
        of: "loss", "score" or "margin".
        norm: 1, 2 or inf, the norm of perturbations; the gradient is measured in the dual norm, inf, 2 or 1.
        squared: square the norm.
        method, step: as of `Regularizer`.

    Raises:
        TypeError: the weight is not a number.
        ValueError: a negative or non-finite weight, unknown ``of``, ``norm`` or ``method``.

    Etmann et al. (2019), after Drucker & LeCun (1992); see `input_gradient_penalty`.

    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> loss = torch.nn.functional.cross_entropy(model(x), y) + LocalLipschitz(1e-3)(model, x, y)
    >>> loss.backward()
    """

    name = "local_lipschitz"

    def __init__(
        self,
        weight: float,
        *,
        of: Of = "loss",
        norm: float = 2,
        squared: bool = True,
        method: Method = "double-backward",
        step: float = 0.01,
    ):
        super().__init__(weight, method=method, step=step)
        self.of: Of = check_of(of)
        self.norm, self.squared = check_norm(norm), squared
        self.only_needs_loss = of == "loss" and method == "double-backward"

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        return gradient_penalty(graph, target, of=self.of, norm=self.norm, squared=self.squared)

    def loss_gradient_penalty(self, gradients: Tensors) -> Tensor:
        return gradient_size(gradients, norm=self.norm, squared=self.squared)


def check_regularizer(value: Any) -> None:
    """A `TypeError` unless ``value`` is a regularizer."""
    if not isinstance(value, Regularizer):
        raise TypeError(f"regularizer: got {type(value).__name__}, expected a Regularizer such as LocalLipschitz")


def check_factor(value: Any, name: str) -> float:
    """``value`` as a float; an error unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, expected a number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: got {value!r}, expected a finite number >= 0")
    return float(value)
