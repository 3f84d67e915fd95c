"""Whether saliency maps show their own image, or any image of their class."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._inputs import TensorOrTuple, check_count, check_norm, per_sample_norm
from captum_alignment._core._random import as_generator
from captum_alignment._core._statistics import describe
from captum_alignment.metrics._alignment import gram_factors

#: Numbers of a block of permutations held at once.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class ExchangeabilityTest:
    """The result of `exchangeability_test`.

    Attributes:
        p_value: the share of permutations whose maps fit as well as the own ones; small where maps show their image.
        excess: (N,) a sample's alignment with its map less what the images and the maps of its class lead to expect;
            the mean over samples is what is tested.
        variance: (N,) its share in the variance of the sum of excesses over permutations. Both are NaN for the only
            sample of a class.
    """

    p_value: float
    excess: Tensor
    variance: Tensor

    @property
    def z(self) -> float:
        """The sum of excesses in its standard deviations over permutations; normal for many samples (Hoeffding 1951).

        NaN where all maps of a class are equal.
        """
        return float(self.excess.nansum() / self.variance.nansum().sqrt())

    def __str__(self) -> str:
        tested = int((~self.excess.isnan()).sum())
        head = f"maps are exchangeable within a class: p = {self.p_value:.3g} ({tested} of {len(self.excess)} samples)"
        return f"{head}\nalignment beyond the class {describe(self.excess)}"


def exchangeability_test(
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    labels: Tensor,
    *,
    norm: float = 2,
    permutations: int = 999,
    generator: torch.Generator | None = None,
) -> ExchangeabilityTest:
    """Does a map show its image, or only the class? A permutation test of the mean alignment, one-sided.

    Where maps are templates of a class, exchanging them between images of that class changes nothing, though every map
    is far above the chance level of `alignment_null`. Under that hypothesis the own assignment of maps to images is one
    of equally likely ones, and p <= a has a probability of at most a, for any number of samples.

    Args:
        inputs, attributions, norm: as in `alignment`.
        labels: (N,), the class of each map: the predicted one where a map explains the prediction.
        permutations: so many are drawn; the smallest p is 1 / (permutations + 1). 0: no p (NaN), ``z`` alone.
        generator: of the permutations; None is a fixed private one.

    Raises:
        TypeError, ValueError: as `alignment`; labels that are no integers (N,), or no class with two samples.

    Pitman (1937) for permutation tests; that it is asked of alignment is ours.

    >>> images = torch.rand(60, 1, 4, 4)
    >>> exchangeability_test(images, images, torch.arange(60) % 3).p_value
    0.001
    """
    check_count("permutations", permutations, least=0)
    norm = check_norm(norm)
    points, maps = gram_factors(inputs, attributions, norm)
    classes = _as_labels(labels, len(points)).to(points.device)
    excess = torch.full((len(points),), torch.nan, dtype=points.dtype, device=points.device)
    variance = excess.clone()
    # A map that is not finite has no alignment, and would leave none to its class.
    finite = points.isfinite().all(1) & maps.isfinite().all(1)
    generator = as_generator(generator)
    # Equal maps must tie although a matrix product rounds its columns differently; ‖x‖ bounds every entry of its row.
    rounding = 16 * torch.finfo(points.dtype).eps * per_sample_norm((points,), norm)
    own, tolerance, permuted = 0.0, 0.0, torch.zeros(permutations, dtype=torch.float64)
    for label in classes[finite].unique():
        members = ((classes == label) & finite).nonzero().flatten()
        if len(members) < 2:
            continue
        scores = _doubly_centred((points[members] @ maps[members].T).abs())
        scores = torch.where(scores.abs() <= rounding[members].unsqueeze(1), 0, scores)
        tolerance += float(rounding[members].sum())
        excess[members] = scores.diagonal()
        variance[members] = scores.square().sum(1) / (len(members) - 1)
        own += float(scores.diagonal().sum())
        permuted += _permuted_sums(scores, permutations, generator)
    if excess.isnan().all():
        raise ValueError("labels: got no class with two samples that have maps, expected one to permute them in")
    p_value = (1 + int((permuted >= own - tolerance).sum())) / (1 + permutations) if permutations else torch.nan
    return ExchangeabilityTest(p_value, excess, variance)


def _as_labels(labels: Any, n: int) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        what = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels: got {what}, expected a tensor of integers, the class of every map")
    if labels.shape != (n,):
        raise ValueError(f"labels: got shape {tuple(labels.shape)}, expected ({n},), the class of every map")
    return labels


def _doubly_centred(scores: Tensor) -> Tensor:
    """Less the means of rows and columns, which no permutation changes."""
    return scores - scores.mean(1, keepdim=True) - scores.mean(0, keepdim=True) + scores.mean()


def _permuted_sums(scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The sum over rows of what a random permutation of the columns leaves on the diagonal, ``count`` times."""
    n, size = len(scores), max(1, _BLOCK // len(scores))
    sums = []
    for start in range(0, count, size):
        keys = torch.rand(min(size, count - start), n, generator=generator, device=generator.device)
        drawn = scores[torch.arange(n, device=scores.device), keys.argsort(1).to(scores.device)]
        sums.append(drawn.sum(1).cpu().double())
    return torch.cat(sums) if sums else torch.empty(0)
