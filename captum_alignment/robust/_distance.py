"""The distance to the decision boundary, as the per-sample minimum over attacks."""

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_alignment._core._foolbox import (
    AttackLike,
    Bounds,
    Model,
    ScoresModel,
    is_fixed_epsilon,
    run_attack,
    unusable,
    verified,
)
from captum_alignment._core._gradients import checked_inputs, for_autograd
from captum_alignment._core._inputs import (
    ForwardFunc,
    InputsT,
    Tensors,
    batches,
    check_norm,
    join,
    like_inputs,
    to_dataframe,
)
from captum_alignment._core._scores import as_target, compute_scores, resolve_target
from captum_alignment._core._statistics import describe
from captum_alignment.robust._portfolio import resolve_attacks
from captum_alignment.robust._refine import bisect_segment, minimise_epsilon

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class AdversarialDistance(Generic[InputsT]):
    """What the attacks found, per sample (N,), on the inputs' device.

    Attributes:
        distance: the smallest verified distance, after refinement; 0 where the class to leave is not predicted anyway;
            inf where nothing succeeded.
        attack: LongTensor, index into ``names`` of the attack that found it; -1 where no attack did or was needed.
        names: the attacks, in the order in which they ran.
        adversarials: shaped like the inputs; the input itself where there is none.
        by_attack: {name: (N,)} each attack's verified distance before refinement, inf where it failed, NaN where it was
            not run.
        errors: {name: message} of the attacks that in at least one batch raised, or returned NaN, infinity or images
            outside the bounds.
    """

    distance: Tensor
    attack: Tensor
    names: tuple[str, ...]
    adversarials: InputsT
    by_attack: dict[str, Tensor]
    errors: dict[str, str]

    def optimality_gap(self) -> dict[str, Tensor]:
        """{name: (N,)} each attack's distance over the smallest known: 1 is the best, inf a failure, NaN not run."""
        return {
            name: torch.where(column.isinf(), torch.inf, column / self.distance)
            for name, column in self.by_attack.items()
        }

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: distance, attack (its name or None) and a column per attack; needs pandas."""
        frame = to_dataframe({"distance": self.distance, **self.by_attack})
        names = [self.names[i] if i >= 0 else None for i in self.attack.tolist()]
        frame.insert(1, "attack", names)
        return frame

    def __str__(self) -> str:
        found = int(self.distance.isfinite().sum())
        lines = [f"{name:<22}{describe(column)}" for name, column in self.by_attack.items()]
        head = f"median distances over {len(self.distance)} samples, 95 % intervals; {found} with an adversarial"
        return "\n".join([head, f"{'minimum':<22}{describe(self.distance)}", *lines])


def adversarial_distance(
    forward_func: ForwardFunc,
    inputs: InputsT,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    attacks: Any = "fast",
    norm: float = 2,
    bounds: Bounds = (0, 1),
    internal_batch_size: int | None = None,
    refine: bool = True,
    show_progress: bool = False,
) -> AdversarialDistance[InputsT]:
    """rho(x) = inf {‖e‖ : F(x + e) ≠ F(x)} from above (Etmann et al. 2019, Definition 1), per sample.

    Every adversarial that an attack claims is checked by running the model: finite, inside the bounds, another class
    predicted. Then the segment from the input to it is bisected, which never makes it worse. The model's parameters,
    gradients, mode and device are not touched; results do not depend on the global random state.

    Args:
        forward_func: callable returning (N, K) scores, or (N,) / (N, 1) for a binary classifier. A Foolbox
            `PyTorchModel` brings its own bounds.
        inputs: floating tensor (N, ...) inside the bounds, or a tuple of such, one joint vector per sample.
        target: the class to leave, an int or (N,); None is the predicted class.
        additional_forward_args: passed on after ``inputs``, as in Captum.
        attacks: "paper" (gradient attack, DeepFool and Carlini-Wagner with the paper's settings; in l_inf sign-gradient
            search, DeepFool, FMN and random-start PGD), "fast" or "thorough" (`RivalSearch` with fewer or more rivals
            and steps; in l_1 "fast" is FMN and EAD), or Foolbox attacks and callables (model, x, y) -> x_adv: one, a
            sequence, or {name: attack}. A FixedEpsilonAttack is minimised over epsilon, per sample.
        norm: 1, 2 or inf; distances are measured in it, whatever the attacks minimise.
        bounds: (min, max) of every feature.
        internal_batch_size: at most that many samples per attack.
        refine: bisect between the input and the best adversarial.
        show_progress: a progress bar over attacks and batches.

    Raises:
        TypeError, ValueError: inputs that are not floating, empty, not finite or outside the bounds; scores of another
            shape; targets out of range; unknown attacks; batch norm or dropout in training mode.

    Warns:
        UserWarning: an attack that raises, or returns another shape, NaN, infinity or images outside the bounds, is
            named; those samples count as failed, and nothing is lost of what the others found.

    >>> net = torch.nn.Linear(4, 3)
    >>> result = adversarial_distance(net, torch.rand(5, 4))
    >>> result.distance.shape, result.adversarials.shape
    (torch.Size([5]), torch.Size([5, 4]))
    """
    norm = check_norm(norm)
    chosen = resolve_attacks(attacks, norm)
    tensors = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size)
    bounds = resolve_bounds(forward_func, bounds)
    check_inside(tensors, bounds)
    classes = as_target(target, len(tensors[0]))
    with torch.inference_mode(False):
        samples = for_autograd((tensors, classes, additional_forward_args))
        parts = list(batches(internal_batch_size, *samples))
        with tqdm(total=len(parts) * len(chosen), desc="attacks", disable=not show_progress) as bar:
            search = _Search(forward_func, chosen, norm, bounds, refine, bar)
            results = [search.run(*part) for part in parts]
    for name, message in search.errors.items():
        warnings.warn(f"attack {name!r} raised {message}; it counts as failed there", stacklevel=2)
    distance, attack, by_attack, adversarials = zip(*results, strict=True)
    return AdversarialDistance(
        distance=torch.cat(distance),
        attack=torch.cat(attack),
        names=tuple(chosen),
        adversarials=like_inputs(join(adversarials), inputs),
        by_attack={name: torch.cat([part[name] for part in by_attack]) for name in chosen},
        errors=search.errors,
    )


@dataclass
class _Search:
    """The attacks on one batch after the other, and what they raised."""

    forward_func: ForwardFunc
    attacks: dict[str, AttackLike]
    norm: float
    bounds: Bounds
    refine: bool
    bar: tqdm
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, x: Tensors, target: Tensor | None, args: Any) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensors]:
        """distance, attack, by_attack and adversarials of one batch."""
        with torch.no_grad():
            scores = compute_scores(self.forward_func, x, args)
        labels = resolve_target(target, scores)
        whole = ScoresModel(self.forward_func, x, args, self.bounds)
        left = scores.argmax(1) != labels
        todo = (~left).nonzero().flatten()
        points = whole.packed.clone()
        distance = torch.where(left, 0.0, torch.inf).to(points.dtype)
        winner = torch.full_like(labels, -1)
        by_attack = {name: torch.full_like(distance, torch.nan) for name in self.attacks}
        if not len(todo):
            self.bar.update(len(self.attacks))
            return distance, winner, by_attack, x
        model, labels = whole.subset(todo), labels[todo]
        for number, (name, attack) in enumerate(self.attacks.items()):
            self.bar.set_postfix_str(name)
            found, length = self._try(name, attack, model, labels)
            by_attack[name][todo] = length
            nearer = length < distance[todo]
            won = todo[nearer]
            distance[won], points[won], winner[won] = length[nearer], found[nearer], number
            self.bar.update()
        if self.refine:
            points[todo], distance[todo] = bisect_segment(model, points[todo], distance[todo], labels, self.norm)
        return distance, winner, by_attack, whole.unpack(points)

    def _try(self, name: str, attack: AttackLike, model: ScoresModel, labels: Tensor) -> tuple[Tensor, Tensor]:
        def run(model: ScoresModel, labels: Tensor, epsilon: float | None = None) -> Tensor:
            found = run_attack(attack, model, labels, epsilon)
            if problem := unusable(model, found):  # of some samples: the others' results count
                self.errors[name] = f"ValueError: {problem}"
            return found

        try:
            if is_fixed_epsilon(attack):
                return minimise_epsilon(run, model, labels, self.norm)
            return verified(model, run(model, labels), labels, self.norm)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"attack {name!r} ran out of memory on {len(labels)} samples; pass a smaller internal_batch_size"
            ) from error
        except Exception as error:  # an attack is foreign code: whatever it raises, the others' results are kept
            self.errors[name] = f"{type(error).__name__}: {error}"
            return model.packed, torch.full_like(labels, torch.inf, dtype=model.packed.dtype)


def resolve_bounds(forward_func: ForwardFunc, bounds: Bounds) -> Bounds:
    """``bounds`` as two ascending floats, or those that a Foolbox model brings."""
    if isinstance(forward_func, Model):
        own = (float(forward_func.bounds[0]), float(forward_func.bounds[1]))
        if tuple(bounds) not in ((0, 1), own):
            raise ValueError(f"bounds: got {tuple(bounds)}, but the Foolbox model has bounds {own}")
        return own
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"bounds: got {bounds!r}, expected (min, max)") from None
    if not low < high:
        raise ValueError(f"bounds: got {(low, high)}, expected min < max")
    return low, high


def check_inside(tensors: Tensors, bounds: Bounds) -> None:
    """A `ValueError` unless all ``tensors`` lie inside ``bounds``."""
    low, high = min(float(t.min()) for t in tensors), max(float(t.max()) for t in tensors)
    if low < bounds[0] or high > bounds[1]:
        raise ValueError(
            f"inputs range {low:.4g} to {high:.4g}, bounds ({bounds[0]:g}, {bounds[1]:g}): "
            "put the normalisation into the model, or pass the bounds of your inputs"
        )
