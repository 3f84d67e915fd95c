"""Tensors to differentiate at: the inputs of a batch, or in their place what a layer makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from captum_alignment._core._features import find_layer
from captum_alignment._core._inputs import as_tensors
from captum_alignment.training._batch import Unpack, unpacked


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
