"""What the attacks found, per sample."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor

from captum_alignment._core._inputs import InputsT, to_dataframe, widest_dtype
from captum_alignment._core._scores import as_target
from captum_alignment._core._statistics import PERCENT, describe

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class AdversarialDistance(Generic[InputsT]):
    """What the attacks found, per sample (N,), on the inputs' device.

    Attributes:
        distance: the smallest verified distance, after refinement; 0 where the class to leave is not predicted anyway;
            inf where nothing succeeded, which is no evidence of robustness: see ``reason``.
        attack: LongTensor, index into ``names`` of the attack that found it; -1 where no attack did or was needed.
        names: the attacks, in the order in which they ran.
        adversarials: shaped like the inputs; the input itself where there is none.
        by_attack: {name: (N,)} each attack's verified distance before refinement, inf where it failed, NaN where it was
            not run.
        errors: {name: message} of the attacks that in at least one batch raised, or returned NaN, infinity or images
            outside the bounds.
        target: LongTensor, the class to leave.
        reason: for each sample why it has no adversarial, or why its distance may be far too large ("zero gradient",
            "gradient not finite", "no gradient", "nothing found", "attack raised"); "" for all others.
        passes: {name: (forward, backward)} passes of an attack, on average over the samples that it ran on.
        lower_bound: the `certified_distance` within the same bounds, where asked for: no adversarial is nearer.
    """

    distance: Tensor
    attack: Tensor
    names: tuple[str, ...]
    adversarials: InputsT
    by_attack: dict[str, Tensor]
    errors: dict[str, str]
    target: Tensor
    reason: tuple[str, ...]
    passes: dict[str, tuple[float, float]]
    lower_bound: Tensor | None = None

    def robust_accuracy(self, epsilons: float | Sequence[float] | Tensor, labels: Any = None) -> Tensor:
        """The share of samples (E,) whose class withstands every perturbation found up to each epsilon.

        A sample counts at epsilon if its nearest adversarial is farther than that. One without an adversarial has no
        answer and does not count, at any epsilon: a model that hides its gradients is not robust. One that was found in
        spite of a ``reason`` counts as far as it was found, which may be far too large: the share is an upper bound.

        Args:
            epsilons: numbers that are not negative, in the norm and the units of ``distance``.
            labels: an int or (N,), the true classes; samples with another ``target`` do not count. None counts all:
                robustness of the predictions, or of the labels if those were given as ``target``.

        Raises:
            TypeError, ValueError: epsilons that are negative or not numbers, labels of another length.
        """
        try:
            limits = torch.as_tensor(epsilons, dtype=self.distance.dtype, device=self.distance.device).flatten()
        except (TypeError, ValueError) as error:
            raise TypeError(f"epsilons: got {epsilons!r}, expected numbers") from error
        if not (limits >= 0).all():
            raise ValueError(f"epsilons: got {epsilons!r}, expected numbers that are not negative")
        counts = self.distance.isfinite()
        if (classes := as_target(labels, len(self.distance))) is not None:
            counts = counts & (self.target == classes.to(self.target.device))
        return ((self.distance > limits.unsqueeze(1)) & counts).to(widest_dtype(counts.device)).mean(1)

    def optimality_gap(self) -> dict[str, Tensor]:
        """{name: (N,)} each attack's distance over the smallest known: 1 is the best, inf a failure, NaN not run."""
        return {
            name: torch.where(column.isinf(), torch.inf, column / self.distance)
            for name, column in self.by_attack.items()
        }

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: distance, attack (its name or None), reason and a column per attack; needs pandas."""
        frame = to_dataframe({"distance": self.distance, **self.by_attack})
        names = [self.names[i] if i >= 0 else None for i in self.attack.tolist()]
        frame.insert(1, "attack", names)
        frame.insert(2, "reason", list(self.reason))
        if self.lower_bound is not None:
            frame.insert(0, "lower_bound", self.lower_bound.cpu().numpy())
        return frame

    def __str__(self) -> str:
        found = int(self.distance.isfinite().sum())
        lines = [f"{name:<22}{describe(column)}" for name, column in self.by_attack.items()]
        head = f"median distances over {len(self.distance)} samples, {PERCENT} intervals; {found} with an adversarial"
        doubts = [sentence] if (sentence := doubt(self.distance, self.reason)) else []
        return "\n".join([head, f"{'minimum':<22}{describe(self.distance)}", *lines, *doubts])


def doubt(distance: Tensor, reason: Sequence[str]) -> str:
    """A sentence that counts the samples without an adversarial, and those whose distance is in doubt, by reason."""
    infinite = distance.isinf().tolist()
    none = Counter(why for why, inf in zip(reason, infinite, strict=True) if inf)
    some = Counter(why for why, inf in zip(reason, infinite, strict=True) if why and not inf)

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{why} {count}" for why, count in counts.most_common())

    n, parts = len(infinite), []
    if none:
        parts.append(f"no adversarial for {none.total()} of {n} samples ({listed(none)}), which is not robustness")
    if some:
        parts.append(f"the distance of {some.total()} of {n} samples may be far too large ({listed(some)})")
    return "; ".join(parts)
