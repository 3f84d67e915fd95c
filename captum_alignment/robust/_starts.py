"""Where descents start when not at the input."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from captum_alignment._core._inputs import per_sample, per_sample_norm

#: Share of the way from the input to the middle of the box, or to an image of noise.
_WAY = 0.7
#: Starts around and beyond the nearest point: its share of the way, and the noise, both relative to its distance. The
#: first find other valleys on adversarially trained and certified networks, the second on natural ones.
_HOPS = ((1.0, 2.0), (3.0, 1.0))


def starts(x: Tensor, bounds: tuple[float, float]) -> Iterator[Tensor]:
    """Points inside ``bounds`` for the descents of every sample: near the middle of the box first, then near noise.

    Gradients at the input see the nearest kinks of the network only, and on robust networks, whose units are off there,
    they lead into the wrong valley. From far away other units are on, and what a descent comes back to is often nearer
    than what it finds on its way out. The noise is the same for every sample, so that a result does not depend on
    which other samples are in the batch.
    """
    low, high = box(x, bounds)
    yield torch.lerp(x, ((low + high) / 2).expand_as(x), _WAY)
    generator = torch.Generator().manual_seed(0)
    while True:
        noise = torch.rand(x.shape[1:], generator=generator, dtype=torch.float64).to(x)
        yield torch.lerp(x, low + (high - low) * noise, _WAY)


def around(x: Tensor, nearest: Tensor, norm: float, number: int) -> Tensor:
    """Where hop ``number`` starts: around or beyond the ``nearest`` points, by noise that is the same for all samples.

    Where the gradient on the way from the input leads into one valley, here it may lead into the next.
    """
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    if norm != math.inf:
        noise = noise / noise.norm(norm)
    else:
        noise = noise.sign() * torch.rand(x.shape[1:], generator=generator, dtype=torch.float64)
    way, spread = _HOPS[number % len(_HOPS)]
    away = nearest - x
    return x + way * away + spread * per_sample(per_sample_norm((away,), norm).to(x.dtype), x) * noise.to(x)


def box(x: Tensor, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The bounds; where they are infinite, three times the range of each sample's own features."""
    if math.isfinite(bounds[1] - bounds[0]):
        return x.new_tensor(bounds[0]), x.new_tensor(bounds[1])
    low, high = (end.reshape(-1, *[1] * (x.ndim - 1)) for end in x.flatten(1).aminmax(dim=1))
    reach = torch.where(high > low, high - low, high.abs().clamp(min=1))
    return (low - reach).clamp(min=bounds[0]), (high + reach).clamp(max=bounds[1])
