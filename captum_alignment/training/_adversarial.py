"""Adversarial examples to train on: projected gradient ascent through Foolbox's attacks."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import eagerpy as ep
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_alignment._core._foolbox import ScoresModel, run_attack
from captum_alignment._core._foolbox_names import (
    BaseGradientDescent,
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)
from captum_alignment._core._gradients import for_autograd
from captum_alignment._core._inputs import (
    ForwardFunc,
    InputsT,
    Tensors,
    accumulation_dtype,
    as_tensors,
    check_count,
    check_finite,
    like_inputs,
)
from captum_alignment._core._model import is_quantised, no_gradient
from captum_alignment._core._random import as_generator
from captum_alignment._core._scores import as_target, resolve_target
from captum_alignment.training._distributed import unwrapped
from captum_alignment.training._forward import evaluating, scores_of
from captum_alignment.training._regularizers import check_factor

AttackName: TypeAlias = Literal["pgd-l2", "pgd-linf", "pgd-l2-sign"]
#: A number, or one for each channel of images that were normalised channel by channel.
Bound: TypeAlias = float | Sequence[float] | Tensor
ChannelBounds: TypeAlias = tuple[Bound, Bound]


class L2SignPGD(L2ProjectedGradientDescentAttack):
    """l_2 projected gradient ascent whose steps follow the sign of the gradient, for Foolbox.

    x ← clip(project(x + s · sign(∇ₓ loss) / sqrt(D))), a step of l_2 length s like that of Foolbox's ``L2PGD``, which
    follows the normalised gradient. The projection rescales into the l_2 ball. The training attack of Zeng et al.
    (2021).

    Args:
        rel_stepsize, abs_stepsize, steps, random_start: as of Foolbox's ``L2PGD``.

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = L2SignPGD(steps=2)(model, x, y, epsilons=0.5)
    >>> adversarials.shape
    torch.Size([5, 4])
    """

    def normalize(self, gradients: ep.Tensor, *, x: ep.Tensor, bounds: Any) -> ep.Tensor:  # noqa: ARG002
        return gradients.sign() / math.sqrt(math.prod(x.shape[1:]))


_ATTACKS: dict[AttackName, type[BaseGradientDescent]] = {
    "pgd-l2": L2ProjectedGradientDescentAttack,
    "pgd-linf": LinfProjectedGradientDescentAttack,
    "pgd-l2-sign": L2SignPGD,
}

#: The bounds that Foolbox is told, which knows those of no channel: the attacks here keep to theirs themselves.
_UNBOUNDED = (-math.inf, math.inf)
#: The noise that TRADES starts from, where the divergence itself has no gradient.
_NOISE = 0.001


def adversarial_examples(
    forward_func: ForwardFunc,
    inputs: InputsT,
    target: Any,
    additional_forward_args: Any = None,
    *,
    attack: AttackName,
    epsilon: float,
    steps: int = 20,
    step_size: float | None = None,
    random_start: bool = True,
    bounds: ChannelBounds = (0, 1),
    generator: torch.Generator | None = None,
) -> InputsT:
    """Inputs of high loss near ``inputs``, to train on: ``loss(model(adversarial_examples(model, x, y, …)), y)``.

    The model is attacked in eval mode and leaves in the modes that it had, with the ``.grad`` of its parameters and the
    global random numbers untouched. Of a DDP or compiled model the module inside is run.

    Args:
        forward_func: any callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        inputs: a tensor or tuple of tensors (N, ...) within ``bounds``; a tuple counts as one vector per sample.
        target: the true class of each sample, as in Captum; None is the predicted class.
        additional_forward_args: further arguments of ``forward_func``, as in Captum.
        attack: "pgd-l2" and "pgd-linf" are Foolbox's projected gradient ascents on the cross-entropy, along the
            normalised gradient and along its sign; "pgd-l2-sign" is `L2SignPGD`.
        epsilon: the radius of the ball, in units of the input; 0 returns the inputs.
        steps: gradient steps, a forward and a backward pass each.
        step_size: the length of a step in the norm of the ball; None is 2.5 epsilon / steps.
        random_start: begin at a random point of the ball.
        bounds: the least and greatest values of an input, each a number or, for images that were normalised channel by
            channel, a sequence of one for each channel, (C,) or (C, 1, 1): ``((0 - mean) / std, (1 - mean) / std)``.
        generator: where the random start comes from. None is a fixed seed, the same in every call; in a training loop
            pass one that you keep, so that starts differ from step to step.

    Returns:
        Detached inputs like ``inputs``, within ``epsilon`` and ``bounds``.

    Raises:
        TypeError: wrong kinds of arguments.
        ValueError: inputs out of bounds, NaN or empty, targets out of range, unknown attack, numbers out of range.

    Madry et al. (2018); the sign-step form and its use for attributions: Zeng et al. (2021).

    >>> x, y = torch.rand(8, 4), torch.arange(8) % 3
    >>> adversarial_examples(torch.nn.Linear(4, 3), x, y, attack="pgd-linf", epsilon=0.1, steps=2).shape
    torch.Size([8, 4])
    """
    check_attack(attack, epsilon, steps, step_size)
    tensors = tuple(x.detach() for x in for_autograd(as_tensors(inputs)))
    check_finite(tensors, "inputs")
    limits = _limits(bounds, tensors)
    inner = unwrapped(forward_func, twice=True)
    with evaluating(inner):
        model = ScoresModel(inner, tensors, for_autograd(additional_forward_args), _UNBOUNDED)
        chosen = as_target(for_autograd(target), len(tensors[0]))
        with torch.no_grad():
            labels = resolve_target(chosen, scores_of(inner, tensors, model.args))
        if epsilon == 0:
            return like_inputs(tensors, inputs)
        if is_quantised(inner):
            raise ValueError(no_gradient(inner))
        generator = as_generator(generator)
        kind = _within(limits, _ATTACKS[attack], generator)
        found = run_attack(
            kind(rel_stepsize=2.5 / steps, abs_stepsize=step_size, steps=steps, random_start=random_start),
            model, labels, float(epsilon),
        )  # fmt: skip
    return like_inputs(model.unpack(found), inputs)


def divergent_examples(
    model: ForwardFunc,
    inputs: Tensors,
    *,
    attack: AttackName,
    epsilon: float,
    steps: int,
    step_size: float | None,
    bounds: ChannelBounds,
    generator: torch.Generator,
) -> Tensors:
    """Inputs near ``inputs`` whose predicted probabilities p' differ most: ascent on KL(p ‖ p'), as `TRADES` asks."""
    limits = _limits(bounds, inputs)
    with evaluating(model):
        wrapped = ScoresModel(model, inputs, None, _UNBOUNDED)
        with torch.no_grad():
            scores = scores_of(model, inputs)
        if epsilon == 0:
            return inputs

        class Divergence(_within(limits, _ATTACKS[attack], generator)):
            def get_random_start(self, x0: ep.Tensor, epsilon: float) -> ep.Tensor:
                noise = torch.randn(x0.shape, generator=generator, device=generator.device)
                return self.project(ep.astensor(x0.raw + _NOISE * noise.to(x0.raw)), x0, epsilon)

            def get_loss_fn(self, model: Any, labels: ep.Tensor) -> Any:  # noqa: ARG002
                clean = scores.log_softmax(1)

                return lambda x: ep.astensor(divergence(clean, model(x).raw.log_softmax(1)).sum())

        kind: Any = Divergence
        ascent = kind(rel_stepsize=2.5 / steps, abs_stepsize=step_size, steps=steps, random_start=True)
        return wrapped.unpack(run_attack(ascent, wrapped, scores.argmax(1), float(epsilon)))


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    """KL(p ‖ p') (N,) of log probabilities (N, K); a class of probability 0, masked by -inf, adds nothing."""
    never = clean == -math.inf
    clean, other = clean.masked_fill(never, 0), other.masked_fill(never, 0)
    return F.kl_div(other, clean, reduction="none", log_target=True).sum(1)


def check_attack(attack: AttackName, epsilon: float, steps: int, step_size: float | None) -> None:
    """An error unless the options of an attack make sense."""
    if attack not in get_args(AttackName):
        raise ValueError(f"attack: got {attack!r}, expected one of {', '.join(map(repr, get_args(AttackName)))}")
    check_factor(epsilon, "epsilon")
    check_count("steps", steps)
    if step_size is not None and check_factor(step_size, "step_size") == 0:
        raise ValueError("step_size: got 0, expected a positive number or None")


def _limits(bounds: ChannelBounds, inputs: Tensors) -> tuple[Tensor, Tensor]:
    """Both bounds, shaped to broadcast against an input; a `ValueError` unless they ascend and hold all ``inputs``."""
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in bounds)
    low, high = (limit.flatten() if limit.shape[1:].numel() == 1 < limit.ndim else limit for limit in (low, high))
    if not bool((low < high).all()):
        raise ValueError(f"bounds: got {bounds!r}, expected two ascending numbers, or such of each channel")
    if low.ndim or high.ndim:
        channels = inputs[0].shape[1] if len(inputs) == 1 and inputs[0].ndim > 1 else None
        if any(limit.ndim > 1 or (limit.ndim and len(limit) != channels) for limit in (low, high)):
            raise ValueError(f"bounds: got {bounds!r}, expected numbers or, for one input (N, C, ...), C of them")
        low, high = (limit.reshape(-1, *[1] * (inputs[0].ndim - 2)) if limit.ndim else limit for limit in (low, high))
    device, dtype = inputs[0].device, accumulation_dtype(*(x.dtype for x in inputs))
    low, high = low.to(device, dtype), high.to(device, dtype)
    if any(bool(((x < low) | (x > high)).any()) for x in inputs):
        least, greatest = min(float(x.min()) for x in inputs), max(float(x.max()) for x in inputs)
        raise ValueError(f"inputs: lie in [{least:.4g}, {greatest:.4g}], expected them within bounds={bounds!r}")
    return low, high


def _within(limits: tuple[Tensor, Tensor], attack: Any, generator: torch.Generator) -> Any:
    """``attack`` within ``limits``, with a random start from ``generator``.

    Foolbox knows bounds that are numbers, and `run_attack` always seeds, and restores, the global generator.
    """

    class Within(attack):
        def get_random_start(self, x0: ep.Tensor, epsilon: float) -> ep.Tensor:
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            torch.manual_seed(int(seed))
            return _clipped(super().get_random_start(x0, epsilon), limits)

        def project(self, x: ep.Tensor, x0: ep.Tensor, epsilon: float) -> ep.Tensor:
            return _clipped(super().project(x, x0, epsilon), limits)

    return Within


def _clipped(x: ep.Tensor, limits: tuple[Tensor, Tensor]) -> ep.Tensor:
    return ep.astensor(x.raw.clamp(*limits))
