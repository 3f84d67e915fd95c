"""How many samples go through the model at once."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

T = TypeVar("T")
#: Samples of an automatic batch on a CPU, where a larger one is no faster, and bytes of their graph: memory ends there
#: without an error that could be caught.
_CPU_SAMPLES, _CPU_BYTES = 100, 2**30
#: Samples of an automatic batch on an accelerator.
_LARGE = 2**16


class BatchSize:
    """How many samples go through the model at once; "auto" starts large and is halved when memory does not suffice.

    Args:
        like: one sample (1, ...) on the device of ``model``.
    """

    def __init__(self, size: int | str, model: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.automatic = isinstance(size, str)
        if not isinstance(size, str):
            self.size = size
        elif like.device.type != "cpu":
            self.size = _LARGE
        else:
            self.size = max(1, min(_CPU_SAMPLES, _CPU_BYTES // max(1, _graph_bytes(model, like))))

    def over(self, samples: Sequence[T], function: Callable[[Sequence[T]], Any]) -> Iterator[Any]:
        """``function`` of consecutive batches of ``samples``, each as large as memory allows.

        Raises:
            MemoryError: a single sample, or a batch of a given size, is too large.
        """
        start = 0
        while start < len(samples):
            batch = samples[start : start + self.size]
            try:
                result = function(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self.automatic or len(batch) == 1:
                    way_out = "no smaller batch is possible" if len(batch) == 1 else "use a smaller one, or 'auto'"
                    raise MemoryError(f"batch_size: {len(batch)} samples do not fit into memory; {way_out}") from error
                self.size = len(batch) // 2
            else:
                start += len(batch)
                yield result
                continue
            # Outside the handler, whose traceback holds the tensors that did not fit.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def over_rows(self, n: int, function: Callable[[slice], Any]) -> Iterator[Any]:
        """As `over`, of the n rows of tensors: ``function`` of consecutive slices."""
        return self.over(range(n), lambda rows: function(slice(rows[0], rows[-1] + 1)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might do."""
    # On a CPU torch raises a RuntimeError that only its text tells from others.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error)


def _graph_bytes(model: Callable[[Tensor], Tensor], like: Tensor) -> int:
    """What the graph of one more sample keeps in memory; all there is where a model does not run three at once."""

    def total(samples: int) -> int:
        held: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = like.repeat(samples, *[1] * (like.ndim - 1)).requires_grad_()
        with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            # A copy, for first operations in place; the scores live until all is counted: addresses are given again.
            scores = model(images.clone())
        del scores
        return sum(held.values())

    with warnings.catch_warnings():
        # Compiled models look at the gradient of the copy.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor", UserWarning)
        try:
            return total(3) - total(2)  # parameters are in both
        except Exception:  # it takes one at a time, or has a sentence of its own, which comes where it is measured
            return _CPU_BYTES
