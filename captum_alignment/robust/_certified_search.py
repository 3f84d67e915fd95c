"""The largest distance that linear relaxation certifies: a search over distances, and one over rivals."""

import math

import torch

from captum_alignment.robust._certified_relaxation import ROUNDING, Claim, Relaxation

#: The search ends where certified and not certified differ by this share, or after that many distances.
_CLOSE, _MOST = 0.01, 25
#: The search ends without a certificate at this share of where it began.
_NEAREST = 1e-8
#: After so much work of the relaxation, the search is content with anything that is certified.
_WORK = 2e9
#: Sweeps over all units for the points that a rival claims, and the multiple of what is certified without at which the
#: search with them begins.
_SWEEPS, _STRETCH = 8, 1.15
#: Without bounds, nothing is certified beyond.
_FARTHEST = 1e12


class Search:
    """The largest certified radius of one sample, over all its rivals; a class masked by -inf is none."""

    def __init__(self, relaxation: Relaxation, label: int, rows: int) -> None:
        self.relaxation, self.rows, self.certified = relaxation, rows, 0.0
        self._enclosed: tuple[float, int] | None = None
        scores = relaxation.values[relaxation.network.output]
        gap = scores[0, label] - scores[0]
        rivals = [j for j in range(len(gap)) if j != label and not math.isinf(gap[j])]
        self.gap = gap[rivals] - ROUNDING * scores[scores.isfinite()].abs().max()
        c = scores.new_zeros(len(rivals), *scores.shape)
        c[:, 0, label] = 1
        c[torch.arange(len(rivals)), 0, rivals] = -1
        self.coefficients = c

    def is_content(self) -> bool:
        """Whether more would take too long."""
        return self.certified > 0 and self.relaxation.work > _WORK

    def run(self, steps: tuple[int, int], *, coarse: bool = False) -> None:
        """Distances between what is certified and what is not, until the two are close."""
        close, most = 0.1 if coarse else _CLOSE, min(self.relaxation.ball.reach(), _FARTHEST)
        good, bad = (0.0, float(self.gap.min())), (math.inf, -math.inf)  # distances and the least lead there
        eps = first = min(self.certified * 1.2 if self.certified else self._linearized(), most)
        for _ in range(_MOST):
            radius, lead = self.radius(eps, steps)
            self.certified = max(self.certified, radius)
            if lead > 0 and eps >= most:
                self.certified = math.inf if most < _FARTHEST else most
                return
            if self.is_content():
                return
            good, bad = ((eps, lead), bad) if lead > 0 else (good, (eps, lead))
            if bad[0] - self.certified <= close * self.certified or bad[0] < _NEAREST * min(first, 1):
                return
            if math.isinf(bad[0]):
                eps = min(eps * 2, most)
                continue
            chord = good[0] + (bad[0] - good[0]) * good[1] / (good[1] - bad[1])
            least, width = self.certified, bad[0] - self.certified
            eps = min(max(chord * (1 + close / 2), least + 0.1 * width), bad[0] - 0.1 * width)

    def radius(self, eps: float, steps: tuple[int, int]) -> tuple[float, float]:
        """A radius up to ``eps`` that the relaxation for ``eps`` certifies, and the least lead over a rival at ``eps``.

        What holds in the ball holds in every smaller one.
        """
        relaxation = self.relaxation
        self._enclose(eps, steps[1])
        with torch.no_grad():
            parts = [
                relaxation.linear(relaxation.network.output, c, eps, steps[0])
                for c in self.coefficients.split(self.rows)
            ]
        a, lost = (torch.cat(part) for part in zip(*parts, strict=True))
        left = self.gap - lost

        def lead(eps: float) -> float:
            return float((left + relaxation.ball.least(a, eps)).nan_to_num(nan=-torch.inf).min())

        if (at_eps := lead(eps)) > 0:
            return eps, at_eps
        low, high = 0.0, eps
        if bool((left <= 0).any()):
            return 0.0, at_eps
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if lead(middle) > 0 else (low, middle)
        return low, at_eps

    def visit(self, steps: int) -> None:
        """Raises what is certified, rival by rival, by bounds for those points alone that the rival claims."""
        most = min(self.relaxation.ball.reach(), _FARTHEST)
        while 0 < self.certified < most and not self.is_content():
            first = far = min(self.certified * _STRETCH, most)
            self._enclose(far, steps)
            with torch.no_grad():
                lost = self.relaxation.least(self.relaxation.network.output, self.coefficients, far, 0)
            for j in (self.gap + lost).argsort().tolist():
                near = self.certified
                if self._claims_nothing(j, far, steps):
                    continue
                while far - near > _CLOSE * near and not self.is_content():
                    middle = (near + far) / 2
                    near, far = (middle, far) if self._claims_nothing(j, middle, steps) else (near, middle)
                far = near
            self.certified = math.inf if far == most < _FARTHEST else far
            if far < first:
                return

    def _claims_nothing(self, rival: int, eps: float, steps: int) -> bool:
        """Whether the rival is known to claim no point of the ball."""
        self._enclose(eps, steps)
        relaxation: Relaxation | None = self.relaxation
        claim = Claim(self.coefficients[rival], self.gap[rival])
        leads: list[float] = []
        for left in range(_SWEEPS, 0, -1):
            with torch.no_grad():
                least = relaxation.least(relaxation.network.output, claim.c[None], eps, steps)
            leads.append(float(claim.gap + least))
            if leads[-1] > 0:
                return True
            hopeless = len(leads) > 1 and not 2 * left * (leads[-1] - leads[-2]) > -leads[-1]  # gains grow
            if hopeless or self.is_content():
                return False
            relaxation = relaxation.within(claim, eps, steps, self.rows)
            if relaxation is None:
                return True
            self.relaxation.work = relaxation.work
        return False

    def _enclose(self, eps: float, steps: int) -> None:
        if self._enclosed != (now := (eps, steps)):
            self.relaxation.enclose(eps, steps, self.rows)
            self._enclosed = now

    def _linearized(self) -> float:
        """A quarter of about rho~: where to start."""
        network, values = self.relaxation.network, self.relaxation.values
        with torch.no_grad():
            found = network.pull(
                {network.output: self.coefficients}, lambda i, g: g * (values[network.nodes[i].parents[0]] > 0)
            )
            a = torch.cat([part.flatten(1) for part in found], 1)
            slope = self.relaxation.ball.least(a, 1e-3).abs() / 1e-3
        return float((self.gap / slope).nan_to_num(nan=torch.inf).min()) / 4
