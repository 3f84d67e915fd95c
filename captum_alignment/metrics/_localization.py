"""Does an attribution lie where an annotation says that the object is?"""

import torch
from torch import Tensor

from captum_alignment._core._inputs import as_images, as_tensors, widest_dtype


def relevance_mass_accuracy(attributions: Tensor, masks: Tensor) -> Tensor:
    """The share (N,) of the size of every map that lies inside its mask, in float64 (float32 where a device lacks it).

    Sizes are absolute values summed over channels. What a flat map scores is the mask's share of the pixels.

    Args:
        attributions: (N, C, H, W).
        masks: of booleans, (N, H, W) or (N, 1, H, W), True inside.

    Returns:
        Values in [0, 1]; NaN for a map that is 0 everywhere or not finite, and for a mask that is empty.

    Raises:
        TypeError, ValueError: not tensors of these kinds and shapes.

    Arras, Osman & Samek (2022), Relevance Mass Accuracy; the absolute values are ours.

    >>> maps = torch.tensor([[[[3.0, 0.0], [-1.0, 0.0]]]])
    >>> relevance_mass_accuracy(maps, maps[:, 0] > 0)
    tensor([0.7500], dtype=torch.float64)
    """
    sizes, inside = _flat(attributions, masks)
    return (sizes * inside).sum(1) / torch.where(_usable(sizes, inside), sizes.sum(1), torch.nan)


def pointing_game(attributions: Tensor, masks: Tensor) -> Tensor:
    """Whether the largest size in every map lies inside its mask (N,): 1 where it does, else 0.

    In float64, or float32 on a device that lacks it. Sizes are absolute values summed over channels. Of several equal
    largest ones it is their share inside. There is no tolerance around the mask, other than in the paper's 15 pixels.

    Args:
        attributions: (N, C, H, W).
        masks: of booleans, (N, H, W) or (N, 1, H, W), True inside.

    Returns:
        Values in [0, 1]; NaN for a map that is 0 everywhere or not finite, and for a mask that is empty.

    Raises:
        TypeError, ValueError: not tensors of these kinds and shapes.

    Zhang, Bargal, Lin, Brandt, Shen & Sclaroff (2018).

    >>> maps = torch.tensor([[[[3.0, 0.0], [-1.0, 0.0]]]])
    >>> pointing_game(maps, maps[:, 0] < 0)
    tensor([0.], dtype=torch.float64)
    """
    sizes, inside = _flat(attributions, masks)
    largest = (sizes == sizes.amax(1, keepdim=True)).to(sizes.dtype)
    return (largest * inside).sum(1) / torch.where(_usable(sizes, inside), largest.sum(1), torch.nan)


def _flat(attributions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The sizes of the pixels (N, H · W), and 1 or 0 where they are inside or outside."""
    maps = as_images(as_tensors(attributions, "attributions"), "attributions").detach()
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        got = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise TypeError(f"masks: got {got}, expected a tensor of booleans")
    n, (height, width) = len(maps), maps.shape[2:]
    if masks.shape not in ((n, height, width), (n, 1, height, width)):
        raise ValueError(f"masks: got shape {tuple(masks.shape)}, expected {(n, height, width)}, as the attributions")
    dtype = widest_dtype(maps.device)
    return maps.to(dtype).abs().sum(1).flatten(1), masks.to(maps.device, dtype).flatten(1)


def _usable(sizes: Tensor, inside: Tensor) -> Tensor:
    return sizes.isfinite().all(1) & (sizes > 0).any(1) & (inside > 0).any(1)
