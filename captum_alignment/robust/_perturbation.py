"""Foolbox attacks as perturbations of `captum.robust`."""

from typing import Any, cast

import torch
from captum.robust import Perturbation

from captum_alignment._core._foolbox import Bounds, ScoresModel, is_fixed_epsilon, run_attack
from captum_alignment._core._foolbox_names import Attack
from captum_alignment._core._gradients import checked_inputs, for_autograd
from captum_alignment._core._inputs import ForwardFunc, InputsT, like_inputs, per_sample
from captum_alignment._core._scores import as_target, compute_scores, resolve_target
from captum_alignment._core._verified import rounding, verified
from captum_alignment.robust._bounds import check_inside, resolve_bounds

#: How much farther than epsilon rounding may put a point, as a share of epsilon.
_ROUNDING = 1e-4


class FoolboxPerturbation(Perturbation):
    """Any Foolbox attack inside `captum.robust`: in `AttackComparator`, `MinParamPerturbation`, or called by itself.

    Every adversarial is checked by running the model: finite, inside the bounds, another class predicted, and where
    there is an epsilon and the attack minimises, no farther than it in the attack's own distance. A sample without one
    comes back *unchanged*, never as NaN or as a point that fools nobody. The model's parameters, gradients, mode and
    device are not touched; the same call returns the same points, so more ``num_attempts`` change nothing.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. A Foolbox
            `PyTorchModel` brings its own bounds.
        attack: a Foolbox attack, e.g. ``foolbox.attacks.LinfPGD()`` or `captum_alignment.robust.DeepFool`.
        bounds: (min, max) of every feature.
        epsilon: the size of the perturbation, in the attack's norm. None lets an attack that minimises do so; one with
            a fixed epsilon needs it here or in the call.

    Raises:
        TypeError: not a Foolbox attack. ValueError: an epsilon that is not a positive number.

    >>> from foolbox.attacks import LinfPGD
    >>> net = torch.nn.Linear(4, 3)
    >>> FoolboxPerturbation(net, LinfPGD(), epsilon=0.1).perturb(torch.rand(5, 4)).shape
    torch.Size([5, 4])

    In `MinParamPerturbation`, ``epsilon`` is a parameter to search over, and ``attack_kwargs={"target": labels}`` says
    which class to leave; in `AttackComparator`, ``additional_attack_arg_names=["target"]`` does.
    """

    def __init__(
        self, forward_func: ForwardFunc, attack: Attack, *, bounds: Bounds = (0, 1), epsilon: float | None = None
    ) -> None:
        if not isinstance(attack, Attack):
            raise TypeError(f"attack: got {type(attack).__name__}, expected a Foolbox attack such as LinfPGD()")
        self.forward_func, self.attack = forward_func, attack
        self.bounds = resolve_bounds(forward_func, bounds)
        self.epsilon = _check_epsilon(epsilon)

    def perturb(  # pyright: ignore[reportIncompatibleVariableOverride]
        self,
        inputs: InputsT,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        epsilon: float | None = None,
    ) -> InputsT:
        """Detached adversarials like ``inputs``; the input itself where there is none.

        Args:
            inputs: floating tensor (N, ...) inside the bounds, or a tuple of such, one joint vector per sample.
            target: the class to leave, an int or (N,); None is the predicted class. A sample that is predicted
                otherwise needs no perturbation and gets none.
            additional_forward_args: passed on after ``inputs``, as in Captum.
            epsilon: in place of that of the constructor; 0 returns the inputs.

        Raises:
            TypeError, ValueError: as `adversarial_distance`; no epsilon for an attack that needs one.
        """
        size = self.epsilon if epsilon is None else _check_epsilon(epsilon, least=0)
        if size is None and is_fixed_epsilon(self.attack):
            raise ValueError(f"epsilon: got None, but {type(self.attack).__name__} needs one")
        tensors = checked_inputs(self.forward_func, inputs, additional_forward_args)
        check_inside(tensors, self.bounds)
        if size == 0:
            return like_inputs(tensors, inputs)
        with torch.inference_mode(False):
            classes = as_target(target, len(tensors[0]))
            x, classes, args = for_autograd((tensors, classes, additional_forward_args))
            with torch.no_grad():
                scores = compute_scores(self.forward_func, x, args)
            labels = resolve_target(classes, scores)
            model = ScoresModel(self.forward_func, x, args, self.bounds)
            model.rounding = rounding(scores, labels)
            found = run_attack(self.attack, model, labels, size)
            if size is None or is_fixed_epsilon(self.attack):
                points, distance = verified(model, found, labels, 2)
                success = distance.isfinite()
            else:  # one that minimises goes as far as it must
                points, distance = verified(model, found, labels, cast(Any, self.attack).distance.p)
                success = distance <= size * (1 + _ROUNDING)
            success &= scores.argmax(1) == labels
            packed = torch.where(per_sample(success, points), points, model.packed)
        return like_inputs(model.unpack(packed), inputs)


def _check_epsilon(epsilon: Any, least: float | None = None) -> float | None:
    if epsilon is None:
        return None
    number = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    if not number or not (0 < epsilon < torch.inf or epsilon == least):
        raise ValueError(f"epsilon: got {epsilon!r}, expected a positive number")
    return float(epsilon)
