"""The distance to the decision boundary, as the per-sample minimum over attacks."""

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_alignment._core._foolbox import Bounds, are_joined
from captum_alignment._core._gradients import checked_inputs, for_autograd
from captum_alignment._core._inputs import (
    ForwardFunc,
    InputsT,
    Tensors,
    batches,
    check_norm,
    flatten,
    join,
    like_inputs,
)
from captum_alignment._core._scores import as_target
from captum_alignment.robust._bounds import check_inside, resolve_bounds
from captum_alignment.robust._certified_distance import certified_distance
from captum_alignment.robust._registry import resolve_attacks
from captum_alignment.robust._result import AdversarialDistance, doubt
from captum_alignment.robust._search import Found, Search


def adversarial_distance(
    forward_func: ForwardFunc,
    inputs: InputsT,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    attacks: Any = "fast",
    norm: float = 2,
    bounds: Bounds = (0, 1),
    feature_mask: Tensor | Tensors | None = None,
    internal_batch_size: int | None = None,
    refine: bool = True,
    certify: bool = False,
    show_progress: bool = False,
) -> AdversarialDistance[InputsT]:
    """rho(x) = inf {‖e‖ : F(x + e) ≠ F(x)} from above (Etmann et al. 2019, Definition 1), per sample.

    Every adversarial that an attack claims is checked by running the model: finite, inside the bounds, another class
    predicted, by a lead above rounding, so that it is adversarial in another batch, alone and in float64. Then the
    segment from the input to it is bisected, which never makes it worse. The model's parameters, gradients, mode and
    device are not touched; results do not depend on the global random state.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. A Foolbox
            `PyTorchModel` brings its own bounds.
        inputs: floating tensor (N, ...) inside the bounds, or a tuple of such, one joint vector per sample.
        target: the class to leave, an int or (N,); None is the predicted class.
        additional_forward_args: passed on after ``inputs``, as in Captum.
        attacks: one, a sequence or {name: attack} of: a name out of `attack_names`, ``FILE.py:NAME``, a Foolbox attack,
            or a callable (model, x, y) -> x_adv. "fast" and "thorough" are `RivalSearch` with fewer or more rivals and
            starts (in l_1 also FMN; there "fast" was a quarter too far in the median on a certified network);
            "thorough" also runs a decision-based attack where there is no gradient to follow. "paper" is the gradient
            attack, DeepFool and Carlini-Wagner with the paper's settings (in l_inf sign-gradient search, DeepFool, FMN
            and random-start PGD). A FixedEpsilonAttack is minimised over epsilon, per sample.
        norm: 1, 2 or inf; distances are measured in it, whatever the attacks minimise.
        bounds: (min, max) of every feature.
        feature_mask: boolean, or 0 and 1, like ``inputs`` or broadcasting to them: which features may change. None is
            all.
        internal_batch_size: at most that many samples per attack.
        refine: bisect between the input and what each attack found.
        certify: add `certified_distance` as ``lower_bound``; networks that it does not know are refused first.
        show_progress: a progress bar over attacks and batches.

    Raises:
        TypeError, ValueError: inputs that are not floating, empty, not finite or outside the bounds; scores of another
            shape; targets out of range; unknown attacks; batch norm or dropout in training mode; a mask that does not
            fit.
        RuntimeError: what the model itself raises in the middle of an attack, which is never turned into distances.

    Warns:
        UserWarning: an attack that raises, or returns another shape, NaN, infinity or images outside the bounds, is
            named; where it raised for a batch it is tried again on its halves, down to single samples, and those on
            which it raises alone count as failed. Another warning counts the samples without an adversarial, and those
            whose gradient is zero or not finite, so that their distance may be far too large.

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
    free = _free(feature_mask, tensors)
    lower = None
    if certify:
        lower = certified_distance(
            forward_func,
            inputs,
            target,
            additional_forward_args,
            norm=norm,
            bounds=bounds if all(map(math.isfinite, bounds)) else None,
            show_progress=show_progress,
        )
    with torch.inference_mode(False):
        samples = for_autograd((tensors, classes, additional_forward_args, free))
        parts = list(batches(internal_batch_size, *samples))
        with tqdm(total=len(parts) * len(chosen), desc="attacks", disable=not show_progress) as bar:
            search = Search(forward_func, chosen, norm, bounds, refine, internal_batch_size is None, bar)
            results = [search.run(*part) for part in parts]
    for name, message in search.errors.items():
        warnings.warn(f"attack {name!r} raised {message}; it counts as failed there", stacklevel=2)
    result = replace(_joined(results, search, inputs), lower_bound=lower)
    if sentence := doubt(result.distance, result.reason):
        warnings.warn(sentence, stacklevel=2)
    return result


def _joined(results: list[Found], search: Search, inputs: InputsT) -> AdversarialDistance[InputsT]:
    return AdversarialDistance(
        distance=torch.cat([part.distance for part in results]),
        attack=torch.cat([part.attack for part in results]),
        names=tuple(search.attacks),
        adversarials=like_inputs(join([part.adversarials for part in results]), inputs),
        by_attack={name: torch.cat([part.by_attack[name] for part in results]) for name in search.attacks},
        errors=search.errors,
        target=torch.cat([part.target for part in results]),
        reason=tuple(why for part in results for why in part.reason),
        passes=search.passes(),
    )


def _free(feature_mask: Any, tensors: Tensors) -> Tensor | None:
    """``feature_mask`` as one boolean tensor that looks like what attacks see."""
    if feature_mask is None:
        return None
    masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    if len(masks) != len(tensors) or not all(isinstance(mask, Tensor) for mask in masks):
        raise TypeError(f"feature_mask: got {type(feature_mask).__name__}, expected a tensor like each of the inputs")
    whole = []
    for mask, x in zip(masks, tensors, strict=True):
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("feature_mask: got other values than 0 and 1 (or True and False: may change)")
        try:
            whole.append(mask.to(x.device).bool().expand_as(x))
        except RuntimeError:
            raise ValueError(
                f"feature_mask: got shape {tuple(mask.shape)}, expected {tuple(x.shape)} or what broadcasts to it"
            ) from None
    return flatten(tuple(whole), torch.bool) if are_joined(tensors) else whole[0]
