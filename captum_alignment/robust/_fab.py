"""Fast adaptive boundary attack (Croce & Hein, ICML 2020), toward one rival and as a Foolbox attack."""

import math

import torch
from torch import Tensor

from captum_alignment._core._foolbox import score_function
from captum_alignment._core._foolbox_names import Model
from captum_alignment._core._inputs import check_count, per_sample, per_sample_dot, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack, margin, nearer
from captum_alignment.robust._plane import to_plane

#: alpha_max and eta of the paper: the pull of the input's own projection, and by how much a step overshoots.
_PULL, _OVERSHOOT = 0.1, 1.05
#: 1 - beta of the paper: how much of the way back to the input a step starts from, after a point is adversarial. The
#: paper's .1 takes two to three times the steps to come as near on adversarially trained and certified networks.
_RETREAT = 0.3


class FAB(UntargetedAttack):
    """Minimum-norm attack that projects onto the linearized boundary to a rival, again and again, inside the bounds.

    Finds the nearest points on networks whose gradients at the input mislead (adversarially trained, certified), where
    descent on a sphere comes late. Foolbox has no such attack. Each step costs one forward and one backward pass: the
    point is tested, and linearized if it fails, in one go.

    Args:
        norm: 1, 2 or inf.
        rivals: so many of the most likely other classes are tried one after the other (the targeted form).
        steps: for each rival.

    Raises:
        ValueError: another norm, numbers that are not positive; at run time a criterion other than
            `Misclassification`.

    Croce & Hein (2020).

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = FAB()(model, x, y, epsilons=None)
    >>> adversarials.shape, success.shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    norms = (1, 2, math.inf)

    def __init__(self, *, norm: float = 2, rivals: int = 3, steps: int = 40) -> None:
        super().__init__(norm=norm)
        self.rivals = check_count("rivals", rivals)
        self.steps = check_count("steps", steps)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            scores = score_function(model)(x).scatter(1, labels.unsqueeze(1), -torch.inf)
        best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
        for rival in scores.topk(min(self.rivals, scores.shape[1] - 1), 1).indices.unbind(1):
            found = fab(model, x, labels, rival, steps=self.steps, norm=self.norm)
            best, points = nearer(*found, best, points)
        return points


def fab(
    model: Model,
    x: Tensor,
    labels: Tensor | None,
    rival: Tensor,
    *,
    steps: int,
    norm: float,
    start: Tensor | None = None,
    retreat: float = _RETREAT,
) -> tuple[Tensor, Tensor]:
    """Length (N,), inf without success, and point of the nearest adversarial on the way to ``rival`` (N,).

    As in `margin`, without ``labels`` only the class ``rival`` counts.
    """
    best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
    point = x if start is None else start
    for _ in range(steps):
        adversarial, lead, gradient = margin(model, point, labels, rival)
        away = point - x
        distance = torch.where(adversarial, per_sample_norm((away,), norm).to(x.dtype), torch.inf)
        best, points = nearer(distance, point, best, points)
        back = per_sample(torch.where(adversarial, retreat, 0.0).to(x.dtype), x) * away
        # The linearized margin at the input and at the point that the step starts from.
        slope = per_sample_dot((gradient,), (away,))
        retreated = lead - torch.where(adversarial, retreat, 0.0).to(x.dtype) * slope
        origin = to_plane(x, gradient, lead - slope, model.bounds, norm)
        step = to_plane(point - back, gradient, retreated, model.bounds, norm)
        lengths = per_sample_norm((torch.cat([origin, step]),), norm).to(x.dtype).chunk(2)  # an accelerator waits once
        pull = per_sample((lengths[1] / (lengths[0] + lengths[1]).clamp(min=1e-12)).clamp(max=_PULL), x)
        free = point - back + _OVERSHOOT * step
        ahead = torch.lerp(free, x + _OVERSHOOT * origin, pull).clamp(*model.bounds)
        # Scores that overflow have no plane: half the way back there may be one.
        point = torch.where(per_sample(lead.isfinite(), x), ahead, (x + point) / 2)
    return best, points
