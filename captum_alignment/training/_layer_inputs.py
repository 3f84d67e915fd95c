"""Tensors to differentiate at: the inputs of a batch, or in their place what a layer makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_alignment._core._features import find_layer
from captum_alignment._core._inputs import as_tensors
from captum_alignment.training._batch import Unpack, unpacked
from captum_alignment.training._forward import kept_buffers


class LayerInputs:
    """A model from one of its layers on: tokens and the like have no gradient, what an embedding makes of them has.

    ``LayerInputs(model, "embedding", tokens)`` holds the output of that layer for these inputs, ``inputs``, and called
    with other values of it returns what the model returns when the layer puts those out. It goes wherever a
    ``forward_func`` does:

    >>> import torch
    >>> from captum_alignment import linear_analysis
    >>> from captum_alignment.training import LocalLipschitz
    >>> model = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(40, 3))
    >>> tokens, labels = torch.randint(50, (4, 5)), torch.tensor([0, 1, 2, 0])
    >>> embedded = LayerInputs(model, "0", tokens)
    >>> term = LocalLipschitz(0.1)(embedded, embedded.inputs, labels)
    >>> linear_analysis(embedded, embedded.inputs).linearized_robustness.shape
    torch.Size([4])

    The values count as data: a term gives no gradient to the layer itself, nor to those before it.

    Args:
        model: a module; the arguments that are not tensors of one entry per sample are handed on as they are.
        layer: the name of a submodule that runs once and returns a tensor (N, ...).
        inputs: what the model is called with, one entry for each sample.

    Attributes:
        inputs: the layer's output (N, ...), detached.

    Raises:
        TypeError: the layer returns no tensor.
        ValueError: no such layer, one that does not run exactly once; in a call, another number of samples.
    """

    def __init__(self, model: nn.Module, layer: str, *inputs: Any, **options: Any) -> None:
        self.model, self.layer, self._args, self._options = model, layer, inputs, options
        self._module = find_layer(model, layer)
        with torch.no_grad(), kept_buffers(model):
            self.inputs = self._run(None).detach()

    def __call__(self, values: Tensor) -> Any:
        if len(values) != len(self.inputs):
            raise ValueError(
                f"inputs: got {len(values)} samples, but {self.layer!r} was recorded for {len(self.inputs)}; "
                "expected all of them at a time (internal_batch_size=None)"
            )
        return self._run(values)

    def _run(self, values: Tensor | None) -> Any:
        outputs: list[Tensor] = []

        def exchange(_module: nn.Module, _args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise TypeError(f"layer: {self.layer!r} returned {type(output).__name__}, expected a tensor (N, ...)")
            outputs.append(output.clone())
            return values

        handle = self._module.register_forward_hook(exchange)
        try:
            found = self.model(*self._args, **self._options)
        finally:
            handle.remove()
        if len(outputs) != 1:
            raise ValueError(f"layer: {self.layer!r} ran {len(outputs)} times in one forward pass, expected once")
        return outputs[0] if values is None else found


@contextmanager
def watched(module: nn.Module, batch: Any, unpack: Unpack | None, layer: str | None) -> Iterator[list[Tensor]]:
    """A list of the tensors to differentiate a loss at, which requires grad inside: the inputs of the batch, or the
    outputs of ``layer``, once it has run.
    """
    if layer is None:
        inputs, *_ = unpacked(batch, unpack)
        tensors = list(as_tensors(inputs, "batch inputs"))
        frozen = [(tensor, tensor.grad) for tensor in tensors if not tensor.requires_grad]
        try:
            for tensor, _ in frozen:
                tensor.requires_grad_()
            yield tensors
        finally:
            for tensor, grad in frozen:
                tensor.requires_grad_(False)
                tensor.grad = grad
        return
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"layer: {layer!r} returned {type(output).__name__}, expected a tensor (N, ...)")
        outputs.append(output if output.requires_grad else output.detach().requires_grad_())
        return outputs[-1].clone()  # what follows may write over it: an in-place ReLU

    handle = find_layer(module, layer).register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()
