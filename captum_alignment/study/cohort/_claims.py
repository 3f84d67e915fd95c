"""One verdict per claim of Etmann et al. 2019, at a level that holds for all trainings of a study."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from captum_alignment.metrics import LEVEL
from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.cohort._judges import (
    HIGH,
    Judgement,
    correlated,
    flattens,
    linearized_is_close,
    maps_fit_their_image,
    more_linear_more_linked,
    nearer_than_gradient,
    rises,
    too_few,
)
from captum_alignment.study.fit import STANDARD
from captum_alignment.study.page import PERCENT, counted, holm

Status = Literal["supported", "contradicted", "not distinguishable", "not testable"]


@dataclass(frozen=True)
class Verdict:
    """A claim, the figure of the paper that makes it, what this study says of it, of which training, and its p.

    p is None where there is no test.
    """

    claim: str
    figure: str
    status: Status
    evidence: str
    training: str = ""
    p: float | None = None

    def __str__(self) -> str:
        return f"{self.claim}: {self.status}. {self.evidence}"


@dataclass(frozen=True)
class _Claim:
    text: str
    figure: str
    needs: int  # usable strengths; fewer than three points are always in some order
    judge: Callable[[Cohort], Judgement]


def verdicts(cohort: Cohort) -> list[Verdict]:
    """One `Verdict` per claim, in the order of the paper's figures. Only usable strengths take part."""
    found = int(cohort.usable.sum())
    judged = [(claim, _judge(claim, cohort, found)) for claim in CLAIMS]
    return [Verdict(claim.text, claim.figure, _status(j), j.evidence, cohort.training, j.p) for claim, j in judged]


def corrected(found: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts on several trainings, of which each claim's decided ones are so after Holm's correction, too.

    Without it, of seven trainings that do nothing one or another would decide a claim in 3 studies of 10.
    """
    adjusted = {}
    for claim in dict.fromkeys(verdict.claim for verdict in found):
        family = [k for k, verdict in enumerate(found) if verdict.claim == claim]
        p_values = holm([np.nan if (p := found[k].p) is None else p for k in family])
        adjusted |= {k: (p, len(family)) for k, p in zip(family, p_values, strict=True)}
    return [_after_holm(verdict, *adjusted[k]) for k, verdict in enumerate(found)]


def _after_holm(verdict: Verdict, p: float, trainings: int) -> Verdict:
    if verdict.status not in ("supported", "contradicted") or p <= 1 - LEVEL:
        return verdict
    note = f"p = {verdict.p:.2g} alone would be {verdict.status}, but not among {trainings} trainings (Holm’s {p:.2g})."
    return replace(verdict, status="not distinguishable", evidence=f"{verdict.evidence} {note}")


def _status(judgement: Judgement) -> Status:
    if judgement.p is None:
        return "not testable"
    if not judgement.p <= 1 - LEVEL:  # NaN, too
        return "not distinguishable"
    return "supported" if judgement.holds else "contradicted"


def _judge(claim: _Claim, cohort: Cohort, found: int) -> Judgement:
    if found < claim.needs:
        return too_few(claim.needs, "usable strength", found)
    if claim.needs > 1 and len(cohort.seeds) < 2:
        return Judgement("It compares trainings, and there is one training seed; --seeds 3 trains three.")
    return claim.judge(cohort)


def basis(cohorts: Sequence[Cohort]) -> str:
    """What the verdicts rest on, as two sentences."""
    first = cohorts[0]
    networks = {
        (cohort.training if strength else STANDARD, strength)
        for cohort in cohorts
        for strength in cohort.strengths[cohort.usable]
    }
    models = len(networks) * len(first.seeds)
    trainings = "one training seed" if len(first.seeds) == 1 else f"{len(first.seeds)} training seeds"
    compared = (
        "Claims that compare trainings are not testable with one"
        if len(first.seeds) == 1
        else "Claims that compare trainings have the seed as their unit: Student’s t"
    )
    return (
        f"Verdicts come from {PERCENT} intervals, of the {counted(first.n, 'common sample')} of "
        f"{counted(models, 'usable model')} ({trainings}). {compared}; those about samples within a model, a paired "
        "bootstrap over samples, to whose variance that over seeds is added."
    )


CLAIMS = (
    _Claim("The saliency maps of the most robust model fit their own image better", "Fig. 1", 2, maps_fit_their_image),
    _Claim("Regularization raises robustness", "Fig. 2, 3", 3, rises("strength", "distance", None, "median ρ")),
    _Claim("Alignment rises with robustness", "Fig. 2, 3", 3, rises("distance", "alignment", "median ρ", "median α")),
    _Claim(
        "Alignment beyond its chance level rises with robustness",
        "Fig. 2, 3",
        3,
        rises("distance", "excess", "median ρ", "median α − chance"),
    ),
    _Claim(
        "Alignment rises with linearized robustness",
        "Fig. 2, 3",
        3,
        rises("linearized_robustness", "alignment", "median ρ̃", "median α"),
    ),
    _Claim("The rise of alignment flattens at the robust end", "Fig. 2 (MNIST)", 3, flattens),
    _Claim("Elaborate attacks find smaller distances than the gradient attack", "Fig. 2, 3", 1, nearer_than_gradient),
    _Claim("Linearized robustness ρ̃ is close to the distances that attacks find", "Fig. 2, 3", 1, linearized_is_close),
    _Claim(
        "Sample by sample, linearized robustness and alignment are correlated",
        "Fig. 4 (MNIST)",
        1,
        correlated("linearized_alignment", "ρ̃ and α", 0.0),
    ),
    _Claim(
        "Sample by sample, linearized robustness and distance are highly correlated",
        "Fig. 5",
        1,
        correlated("linearized_distance", "ρ̃ and ρ", HIGH),
    ),
    _Claim(
        "The link of alignment and robustness is stronger in more linear models",
        "Fig. 4, 5",
        3,
        more_linear_more_linked,
    ),
)
