"""Attacks on one batch after the other: who found what, and why nobody did."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_alignment._core._failure import ModelFailure, reentrant_told
from captum_alignment._core._foolbox import (
    AttackLike,
    Bounds,
    ScoresModel,
    is_fixed_epsilon,
    run_attack,
)
from captum_alignment._core._inputs import ForwardFunc, Tensors
from captum_alignment._core._scores import compute_scores, resolve_target
from captum_alignment._core._verified import pushed_outside, rounding, unusable
from captum_alignment.robust._attack import UntargetedAttack
from captum_alignment.robust._refine import bisect_segment, minimise_epsilon
from captum_alignment.robust._registry import Fallback

#: Why a sample has no answer, or a doubtful one.
_FOLLOWED, _ZERO, _NOT_FINITE, _NO_GRAPH = "", "zero gradient", "gradient not finite", "no gradient"
_NOTHING, _RAISED = "nothing found", "attack raised"


@dataclass(frozen=True)
class Found:
    """`AdversarialDistance` of one batch."""

    distance: Tensor
    attack: Tensor
    by_attack: dict[str, Tensor]
    adversarials: Tensors
    target: Tensor
    reason: list[str]


@dataclass
class Search:
    """The attacks on one batch after the other, what they raised, and what they cost."""

    forward_func: ForwardFunc
    attacks: dict[str, AttackLike | Fallback]
    norm: float
    bounds: Bounds
    refine: bool
    roomy: bool
    bar: tqdm
    errors: dict[str, str] = field(default_factory=dict)
    _passes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))

    def passes(self) -> dict[str, tuple[float, float]]:
        """{name: (forward, backward)} passes per sample that the attack ran on."""
        return {
            name: (forward / max(n, 1), backward / max(n, 1))
            for name, (forward, backward, n) in ((name, self._passes[name]) for name in self.attacks)
        }

    def run(self, x: Tensors, target: Tensor | None, args: Any, free: Tensor | None) -> Found:
        """The attacks on one batch."""
        with torch.no_grad():
            scores = compute_scores(self.forward_func, x, args)
        labels = resolve_target(target, scores)
        whole = ScoresModel(self.forward_func, x, args, self.bounds, free)
        whole.rounding, whole.roomy = rounding(scores, labels), self.roomy
        left = scores.argmax(1) != labels
        todo = (~left).nonzero().flatten()
        batch = _Batch(whole, labels, torch.where(left, 0.0, torch.inf).to(whole.packed.dtype))
        by_attack = {name: torch.full_like(batch.distance, torch.nan) for name in self.attacks}
        gradients = _gradients(whole.subset(todo), labels[todo]) if len(todo) else []
        blind = torch.zeros_like(left)
        blind[todo] = torch.tensor([state != _FOLLOWED for state in gradients], dtype=torch.bool, device=left.device)
        for number, (name, given) in enumerate(self.attacks.items()):
            self.bar.set_postfix_str(name)
            if isinstance(given, Fallback):
                attack, index = given.attack, (~left & (blind | batch.distance.isinf())).nonzero().flatten()
            else:
                attack, index = given, todo
            if len(index):
                before = whole.passes.forward, whole.passes.backward
                points, length, raised = self._try(name, attack, whole, labels, index)
                by_attack[name][index] = length
                spent = whole.passes.forward - before[0], whole.passes.backward - before[1], len(index)
                self._passes[name] = [a + b for a, b in zip(self._passes[name], spent, strict=True)]
                if self.refine:  # before they are compared: the farther point may have the nearer segment
                    points, length = bisect_segment(whole.subset(index), points, length, labels[index], self.norm)
                batch.improve(number, index, points, length, raised)
            self.bar.update()
        reason = [_FOLLOWED] * len(labels)
        winners = batch.attack.tolist()  # -1 where nobody found anything
        for i, state in zip(todo.tolist(), gradients, strict=True):
            reason[i] = self._reason(winners[i], state, batch.raised[i])
        return Found(batch.distance, batch.attack, by_attack, whole.unpack(batch.points), labels, reason)

    def _reason(self, winner: int, gradient: str, raised: str) -> str:
        """Why a sample has no answer, or a doubtful one: found without a gradient by an attack that follows it."""
        if winner < 0:
            return gradient or raised or _NOTHING
        attack = list(self.attacks.values())[winner]
        ours = isinstance(attack.attack if isinstance(attack, Fallback) else attack, UntargetedAttack)
        return gradient if ours else _FOLLOWED

    def _try(
        self, name: str, attack: AttackLike, whole: ScoresModel, labels: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points, lengths (n,) and whether the attack raised (n,) for the samples ``index``."""
        model, classes = whole.subset(index), labels[index]

        def run(model: ScoresModel, labels: Tensor, epsilon: float | None = None) -> Tensor:
            found = run_attack(attack, model, labels, epsilon)
            if problem := unusable(model, found):  # of some samples: the others' results count
                self.errors[name] = f"ValueError: {problem}"
            return found

        try:
            if is_fixed_epsilon(attack):
                points, length = minimise_epsilon(run, model, classes, self.norm)
            else:
                points, length = pushed_outside(model, run(model, classes), classes, self.norm)
            return points, length, torch.zeros_like(length, dtype=torch.bool)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"attack {name!r} ran out of memory on {len(index)} samples; pass a smaller internal_batch_size"
            ) from error
        except ModelFailure:
            raise
        except Exception as error:  # an attack is foreign code: whatever it raises, the others' results are kept
            if isinstance(attack, UntargetedAttack) and not isinstance(error, (ValueError, AssertionError)):
                raise ModelFailure(f"forward_func: {type(error).__name__} in attack {name!r}: {error}") from error
            if len(index) == 1:
                self.errors[name] = f"{type(error).__name__}: {error}"
                length = torch.full_like(classes, torch.inf, dtype=model.packed.dtype)
                return model.packed, length, torch.ones_like(classes, dtype=torch.bool)
        # One sample may have failed the whole batch.
        halves = [self._try(name, attack, whole, labels, half) for half in index.split((len(index) + 1) // 2)]
        points, length, raised = (torch.cat(parts) for parts in zip(*halves, strict=True))
        return points, length, raised


@dataclass
class _Batch:
    """The nearest adversarials so far."""

    whole: ScoresModel
    labels: Tensor
    distance: Tensor
    points: Tensor = field(init=False)
    attack: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.points = self.whole.packed.clone()
        self.attack = torch.full_like(self.labels, -1)
        self.raised = [""] * len(self.labels)

    def improve(self, number: int, index: Tensor, points: Tensor, length: Tensor, raised: Tensor) -> None:
        """Takes what an attack found for the samples ``index``."""
        nearer = length < self.distance[index]
        won = index[nearer]
        self.distance[won], self.points[won], self.attack[won] = length[nearer], points[nearer], number
        for i in index[raised].tolist():
            self.raised[i] = _RAISED


def _gradients(model: ScoresModel, labels: Tensor) -> list[str]:
    """What there is to follow at the inputs: for each sample one of the words above."""
    with torch.enable_grad():
        leaf = model.packed.detach().clone().requires_grad_()
        scores = model.scores(leaf)
        if not scores.requires_grad:
            return [_NO_GRAPH] * len(labels)
        own = scores.gather(1, labels.unsqueeze(1)).squeeze(1)
        other = scores.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
        with reentrant_told():
            (gradient,) = torch.autograd.grad((own - other).sum(), leaf, allow_unused=True)
    if gradient is None:
        return [_NO_GRAPH] * len(labels)
    flat = gradient.flatten(1)
    state = torch.where(flat.isfinite().all(1), (flat == 0).all(1).long(), 2)
    return [(_FOLLOWED, _ZERO, _NOT_FINITE)[k] for k in state.tolist()]
