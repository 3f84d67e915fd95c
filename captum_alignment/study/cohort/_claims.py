"""One verdict per claim of Etmann et al. 2019, from paired-bootstrap intervals over the common samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.cohort._judges import (
    HIGH,
    Judgement,
    Status,
    correlated,
    flattens,
    linearized_is_close,
    maps_fit_their_image,
    more_linear_more_linked,
    nearer_than_gradient,
    rises,
)
from captum_alignment.study.fit import STANDARD


@dataclass(frozen=True)
class Verdict:
    """A claim, the figure of the paper that makes it, what this study says about it, and of which training."""

    claim: str
    figure: str
    status: Status
    evidence: str
    training: str = ""

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
    result = []
    for claim in _CLAIMS:
        status, evidence = _judge(claim, cohort, found)
        result.append(Verdict(claim.text, claim.figure, status, evidence, cohort.training))
    return result


def _judge(claim: _Claim, cohort: Cohort, found: int) -> Judgement:
    if found < claim.needs:
        return "not testable", f"It needs at least {claim.needs} usable strengths, and there are {found}."
    if claim.needs > 1 and len(cohort.seeds) < 2:
        return "not testable", "It compares trainings, and there is one training seed; --seeds 3 trains three."
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
        f"Verdicts come from 95 % intervals, of the {first.n} common samples of {models} usable "
        f"model{'s' if models != 1 else ''} ({trainings}). {compared}; those about samples within a model, a paired "
        "bootstrap."
    )


_CLAIMS = (
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
    _Claim("The rise of alignment flattens at the robust end", "Fig. 2, MNIST", 3, flattens),
    _Claim("Elaborate attacks find smaller distances than the gradient attack", "Fig. 2, 3", 1, nearer_than_gradient),
    _Claim("Linearized robustness ρ̃ is close to the distances that attacks find", "Fig. 2, 3", 1, linearized_is_close),
    _Claim(
        "Sample by sample, linearized robustness and alignment are correlated",
        "Fig. 4, MNIST",
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
