"""A second run of a model beside the user's own: what it must leave alone, and how it can be differentiated twice."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from captum_alignment._core._inputs import Tensors
from captum_alignment._core._model import modules_behind, plain_attention
from captum_alignment._core._scores import compute_scores, run_scores

_COMPILED = ("_orig_mod", "_compiled_call_impl", "_compiler_ctx")


class ScoresOf:
    """``scores(module, inputs)`` as a callable of the inputs, behind which the module can be seen.

    ``inputs`` reaches ``scores`` as ``unpack`` has returned it: a tensor, or a tuple where there are several.
    """

    def __init__(self, module: nn.Module, scores: Callable[..., Any]) -> None:
        self.module, self.scores = module, scores

    def __call__(self, *inputs: Tensor) -> Any:
        return self.scores(self.module, inputs[0] if len(inputs) == 1 else inputs)


def scores_of(model: Any, inputs: Tensors, additional_forward_args: Any = None) -> Tensor:
    """Scores (N, K) of a model in training, as of `compute_scores`.

    One logit is turned into two scores before they are looked at: those of a young net often keep to [0, 1] without
    being probabilities.
    """
    scores = run_scores(model, inputs, additional_forward_args)
    return compute_scores(lambda *_: scores, inputs)


@contextmanager
def kept_buffers(model: Any) -> Iterator[None]:
    """Forward passes inside see and update copies of the buffers: running statistics, power iterations, counters.

    The copies stay on the graph, so that nothing it needs is overwritten afterwards.
    """
    copies: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for module in modules_of(model):
            for name, buffer in module._buffers.items():
                if buffer is not None and not is_lazy(buffer):
                    stack.callback(module._buffers.__setitem__, name, buffer)
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())
        yield


@contextmanager
def twice_differentiable(model: Any) -> Iterator[None]:
    """Forward passes keep to what can be differentiated twice: plain attention kernels, no cuDNN for recurrent
    layers.
    """
    with ExitStack() as stack:
        stack.enter_context(plain_attention())
        if any(isinstance(module, nn.RNNBase) for module in modules_of(model)):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def is_compiled(modules: Iterable[nn.Module]) -> bool:
    """Whether one of ``modules`` went through torch.compile, its own ``.compile()``, or Lightning's."""
    return any(getattr(module, mark, None) is not None for module in modules for mark in _COMPILED)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Every module in eval mode; afterwards each in the mode that it had."""
    training = [module for module in modules_of(model) if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def modules_of(model: Any) -> list[nn.Module]:
    """Every module that a callable runs, as far as they can be seen."""
    return list(dict.fromkeys(module for owner in modules_behind(model) for module in owner.modules()))
