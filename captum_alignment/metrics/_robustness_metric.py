"""Alignment and robustness over many batches, as a metric of torchmetrics."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override  # comes with torch

from captum_alignment import adversarial_distance
from captum_alignment._core._inputs import ForwardFunc, InputsT, check_norm
from captum_alignment._core._statistics import median_interval
from captum_alignment.metrics._alignment import alignment_null
from captum_alignment.metrics._linear_analysis import linear_analysis


class RobustnessMetric(Metric):
    """Medians of alignment, its chance level, linearized robustness and distance, over batches and processes.

    ``metric.update(model, images)`` per batch, then ``metric.compute()``: {name: median, ``<name>_low`` and
    ``<name>_high``: its distribution-free interval, NaN below six samples}, scalars in the units of the input. The
    names are ``alignment`` (alpha), ``alignment_null`` (what the maps of the other samples of its batch score, NaN in a
    batch of one), ``linearized_robustness`` (rho~) and, with attacks, ``distance`` (rho from above; inf where no
    adversarial was found). Needs torchmetrics, which ``captum-alignment[study]`` brings.

    Args:
        attacks, bounds: as of `adversarial_distance`, e.g. "fast"; no attacks, no distance.
        norm: 1, 2 or inf, in which perturbations are measured.
        kwargs: those of `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: an unknown norm; in ``update`` as `linear_analysis` and `adversarial_distance`.

    Etmann et al. (2019), Definitions 1 to 4.

    >>> metric = RobustnessMetric()
    >>> net = torch.nn.Linear(4, 3)
    >>> for batch in torch.rand(2, 8, 4):
    ...     metric.update(net, batch)
    >>> sorted(metric.compute())[:3]
    ['alignment', 'alignment_high', 'alignment_low']
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False

    def __init__(
        self, *, attacks: Any = None, norm: float = 2, bounds: tuple[float, float] = (0, 1), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.attacks, self.norm, self.bounds = attacks, check_norm(norm), bounds
        names = ("alignment", "alignment_null", "linearized_robustness")
        self.names = names if attacks is None else (*names, "distance")
        for name in self.names:
            self.add_state(name, [], dist_reduce_fx="cat")

    @override
    def update(
        self,
        forward_func: ForwardFunc,
        inputs: InputsT,
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> None:
        """Adds a batch (N, ...); arguments as of `linear_analysis`, the model in eval mode."""
        analysis = linear_analysis(forward_func, inputs, target, additional_forward_args, norm=self.norm)
        found = {
            "alignment": analysis.alignment,
            "alignment_null": alignment_null(inputs, analysis.gradient, norm=self.norm).null,
            "linearized_robustness": analysis.linearized_robustness,
        }
        if self.attacks is not None:
            found["distance"] = adversarial_distance(
                forward_func,
                inputs,
                target,
                additional_forward_args,
                attacks=self.attacks,
                norm=self.norm,
                bounds=self.bounds,
            ).distance
        for name, values in found.items():
            getattr(self, name).append(values)

    @override
    def compute(self) -> dict[str, Tensor]:
        results = {}
        for name in self.names:
            values = getattr(self, name)
            # Processes have joined theirs into one tensor.
            values = values if isinstance(values, Tensor) else torch.cat(values) if values else torch.empty(0)
            for ending, value in zip(("", "_low", "_high"), median_interval(values), strict=True):
                results[name + ending] = torch.tensor(value, device=values.device)
        return results
