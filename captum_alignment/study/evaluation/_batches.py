"""How many samples go through the model at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")
#: Values and number of the images of one automatic batch on a CPU, whose memory ends without an error that could be
#: caught, and where a larger batch is no faster but moves the progress bar rarely.
_CPU_VALUES, _CPU_IMAGES = 2**21, 32


class BatchSize:
    """How many samples go through the model at once; "auto" starts large and is halved when memory does not suffice."""

    def __init__(self, size: int | str, values: int, device: torch.device) -> None:
        self.automatic = size == "auto"
        large = max(1, min(_CPU_VALUES // values, _CPU_IMAGES)) if device.type == "cpu" else 2**16
        self.size = large if isinstance(size, str) else size

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
                if not _out_of_memory(error):
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


def _out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a RuntimeError that only its text tells from others.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error)
