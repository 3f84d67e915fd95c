"""The distance to the decision boundary, as the per-sample minimum over attacks."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    verified,
)
from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    Tensors,
    batches,
    check_norm,
    like_inputs,
    to_dataframe,
)
from captum_alignment._core._scores import as_target, compute_scores, resolve_target
from captum_alignment.robust._portfolio import resolve_attacks
from captum_alignment.robust._refine import bisect_segment, minimise_epsilon

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class AdversarialDistance:
    """What the attacks found, per sample (N,), on the inputs' device.

    Attributes:
        distance: the smallest verified distance, after refinement; 0 where the class to leave is not predicted anyway;
            inf where nothing succeeded.
        attack: LongTensor, index into ``names`` of the attack that found it; -1 where no attack did or was needed.
        names: the attacks, in the order in which they ran.
        adversarials: shaped like the inputs; the input itself where there is none.
        by_attack: {name: (N,)} each attack's verified distance before refinement, inf where it failed, NaN where it was
            not run.
        errors: {name: message} of the attacks that raised, in at least one batch.
    """

    distance: Tensor
    attack: Tensor
    names: tuple[str, ...]
    adversarials: TensorOrTuple
    by_attack: dict[str, Tensor]
    errors: dict[str, str]

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: distance, attack (its name or None) and a column per attack; needs pandas."""
        frame = to_dataframe({"distance": self.distance, **self.by_attack})
        names = [self.names[i] if i >= 0 else None for i in self.attack.tolist()]
        frame.insert(1, "attack", names)
        return frame

    def __str__(self) -> str:
        found = int(self.distance.isfinite().sum())
        lines = [f"{name:<22} {column.nanmedian():10.4g}" for name, column in self.by_attack.items()]
        head = f"median distances over {len(self.distance)} samples, {found} with an adversarial"
        return "\n".join([head, f"{'minimum':<22} {self.distance.median():10.4g}", *lines])


def adversarial_distance(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    attacks: Any = "fast",
    norm: float = 2,
    bounds: Bounds = (0, 1),
    internal_batch_size: int | None = None,
    refine: bool = True,
    show_progress: bool = False,
) -> AdversarialDistance:
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
            search, DeepFool, FMN and random-start PGD), "fast" (DeepFool and DDN; in l_inf DeepFool and PGD; in l_1 FMN
            and EAD), or Foolbox attacks and callables (model, x, y) -> x_adv: one, a sequence, or {name: attack}. A
            FixedEpsilonAttack is minimised over epsilon, per sample.
        norm: 1, 2 or inf; distances are measured in it, whatever the attacks minimise.
        bounds: (min, max) of every feature.
        internal_batch_size: at most that many samples per attack.
        refine: bisect between the input and the best adversarial.
        show_progress: a progress bar over attacks and batches.

    Raises:
        TypeError, ValueError: inputs that are not floating, empty, not finite or outside the bounds; scores of another
            shape; targets out of range; unknown attacks; batch norm or dropout in training mode.

    Warns:
        UserWarning: an attack that raises is named, counts as failed, and loses nothing of what the others found.
    """
    norm = check_norm(norm)
    chosen = resolve_attacks(attacks, norm)
    tensors = checked_inputs(forward_func, inputs)
    bounds = _resolve_bounds(forward_func, bounds)
    _check_inside(tensors, bounds)
    classes = as_target(target, len(tensors[0]))
    parts = list(batches(internal_batch_size, tensors, classes, additional_forward_args))
    errors: dict[str, str] = {}
    with tqdm(total=len(parts) * len(chosen), desc="attacks", disable=not show_progress) as bar:
        results = [
            _attack_batch(forward_func, x, t, args, chosen, norm, bounds, refine, errors, bar) for x, t, args in parts
        ]
    for name, message in errors.items():
        warnings.warn(f"attack {name!r} raised {message}; it counts as failed there", stacklevel=2)
    distance, attack, by_attack, adversarials = zip(*results, strict=True)
    return AdversarialDistance(
        distance=torch.cat(distance),
        attack=torch.cat(attack),
        names=tuple(chosen),
        adversarials=like_inputs(tuple(map(torch.cat, zip(*adversarials, strict=True))), inputs),
        by_attack={name: torch.cat([part[name] for part in by_attack]) for name in chosen},
        errors=errors,
    )


def _attack_batch(
    forward_func: ForwardFunc,
    x: Tensors,
    target: Tensor | None,
    args: Any,
    attacks: dict[str, AttackLike],
    norm: float,
    bounds: Bounds,
    refine: bool,
    errors: dict[str, str],
    bar: Any,
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensors]:
    with torch.no_grad():
        scores = compute_scores(forward_func, x, args)
    labels = resolve_target(target, scores)
    model = ScoresModel(forward_func, x, args, bounds)
    done = scores.argmax(1) != labels
    todo = (~done).nonzero().flatten()
    best_points = model.packed.clone()
    best = torch.where(done, 0.0, torch.inf).to(best_points.dtype)
    winner = torch.full_like(labels, -1)
    by_attack = {name: torch.full_like(best, torch.nan) for name in attacks}
    part, part_labels = model.subset(todo), labels[todo]
    for number, (name, attack) in enumerate(attacks.items()):
        bar.set_postfix_str(name)
        if len(todo):
            points, distance = _try_attack(name, attack, part, part_labels, norm, errors)
            by_attack[name][todo] = distance
            nearer = distance < best[todo]
            won = todo[nearer]
            best[won], best_points[won], winner[won] = distance[nearer], points[nearer], number
        bar.update()
    if refine and len(todo):
        best_points[todo], best[todo] = bisect_segment(part, best_points[todo], best[todo], part_labels, norm)
    return best, winner, by_attack, model.unpack(best_points)


def _try_attack(
    name: str, attack: AttackLike, model: ScoresModel, labels: Tensor, norm: float, errors: dict[str, str]
) -> tuple[Tensor, Tensor]:
    try:
        if is_fixed_epsilon(attack):
            return minimise_epsilon(attack, model, labels, norm)
        return verified(model, run_attack(attack, model, labels), labels, norm)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"attack {name!r} ran out of memory on {len(labels)} samples; pass a smaller internal_batch_size"
        ) from error
    except Exception as error:  # an attack is foreign code: whatever it raises, the others' results are kept
        errors[name] = f"{type(error).__name__}: {error}"
        return model.packed, torch.full_like(labels, torch.inf, dtype=model.packed.dtype)


def _resolve_bounds(forward_func: ForwardFunc, bounds: Bounds) -> Bounds:
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


def _check_inside(tensors: Tensors, bounds: Bounds) -> None:
    low, high = min(float(t.min()) for t in tensors), max(float(t.max()) for t in tensors)
    if low < bounds[0] or high > bounds[1]:
        raise ValueError(
            f"inputs range {low:.4g} to {high:.4g}, bounds ({bounds[0]:g}, {bounds[1]:g}): "
            "put the normalisation into the model, or pass the bounds of your inputs"
        )
