"""The border, about what goes with the inputs: which additional arguments belong to a sample."""

from typing import Any

from torch import Tensor


class Shared:
    """Marks what all samples share among ``additional_forward_args``.

    Captum's rule, which holds in every function here: of ``additional_forward_args`` each tensor has one entry for each
    sample and is cut, repeated or permuted with them; anything else is handed on as it is. A tensor that belongs to no
    sample (a graph's adjacency, a table of embeddings, a temperature) is marked, whatever its length; the model gets it
    without the mark. Tensors without a dimension need no mark.

    >>> import torch
    >>> from captum_alignment import Shared, linear_analysis
    >>> x, mask, adjacency = torch.rand(5, 3), torch.ones(5, 3), torch.rand(3, 3)
    >>> net = lambda x, mask, adjacency: (mask * x) @ adjacency
    >>> linear_analysis(net, x, additional_forward_args=(mask, Shared(adjacency))).gap.shape
    torch.Size([5])
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Shared({self.value!r})"


def check_arguments(args: Any, n: int) -> None:
    """A `ValueError` unless every tensor among ``additional_forward_args`` has an entry for each of ``n`` samples."""
    for i, arg in enumerate(args if isinstance(args, tuple) else (args,)):
        if isinstance(arg, Tensor) and arg.ndim and len(arg) != n:
            raise ValueError(
                f"additional_forward_args: entry {i} has shape {tuple(arg.shape)} for {n} samples, expected one entry "
                "for each of them; mark what all samples share: captum_alignment.Shared(tensor)"
            )
        items = arg.values() if isinstance(arg, dict) else arg if isinstance(arg, (tuple, list)) else ()
        if any(isinstance(item, Tensor) for item in items):
            what, held = type(arg).__name__, "entry " + str(i) if isinstance(args, tuple) else "it"
            raise ValueError(
                f"additional_forward_args: {held} is a {what} of tensors, expected the tensors themselves in a tuple, "
                f"or captum_alignment.Shared({what}) for what all samples share"
            )
