"""What an evaluation is to do: the model, the samples and their parts, checked before anything is written."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_alignment.robust import resolve_attacks
from captum_alignment.study.evaluation._attacks import describe_attacks
from captum_alignment.study.evaluation._certify import refusal
from captum_alignment.study.evaluation._config import EvaluationConfig
from captum_alignment.study.load import Autocast, Masks, NamedAttribution, Sample, Samples, reason, resolve_attributions
from captum_alignment.study.store import state_hash

#: Samples of one group, whose maps are each other's chance level; and of a part, which a killed process loses at most.
_GROUP, _GROUP_OF_LARGE = 100, 32
_LARGE = 3 * 64 * 64
#: So many samples are tried before a data set counts as unreadable.
_TRIES = 16


@dataclass(frozen=True)
class Plan:
    """The samples ``indices`` of a data set, in so many parts and groups, and what is measured of ``model``.

    Attributes:
        config: its attacks are resolved: {name: attack}.
        classes: how many the model has. like: an image (1, C, H, W) on the model's device, of its dtype.
        manifest: what tells this evaluation from another, as JSON holds it.
    """

    model: Any
    samples: Samples
    config: EvaluationConfig
    indices: list[int]
    parts: int
    groups: int
    classes: int
    like: Tensor
    attributions: list[NamedAttribution]
    masks: Masks | None
    manifest: dict[str, Any]

    def group(self, number: int) -> list[int]:
        """The samples of a group: far apart, because neighbours in a folder are of one class."""
        return self.indices[number :: self.groups]

    def group_of(self, index: int) -> int:
        """The group of a sample."""
        return bisect_left(self.indices, index) % self.groups

    def part(self, number: int) -> list[int]:
        """The samples of a part: group after group is cut into parts, by default each into one."""
        return self._parts[number].tolist()

    @cached_property
    def _parts(self) -> list[np.ndarray]:
        ordered = np.concatenate([np.array(self.group(number), int) for number in range(self.groups)])
        return np.array_split(ordered, self.parts)


def make_plan(model: Any, dataset: Any, config: EvaluationConfig) -> Plan:
    """What `evaluate` does with these arguments; raises what it says there."""
    if not callable(model):
        raise TypeError(f"model: got {type(model).__name__}, expected a module or a function of images")
    resolved = replace(config, attacks=resolve_attacks(config.attacks, config.norm))
    low, high = (float(bound) for bound in config.bounds)
    samples = Samples(dataset, (low, high))
    indices = _draw(len(samples), config.subset, config.seed)
    runner = model if config.precision == "float32" else Autocast(model, getattr(torch, config.precision))
    like = _first(samples, indices).unsqueeze(0).to(_reference(model))
    samples.shape = tuple(like.shape[1:])
    classes = _try(runner, like)
    group = _GROUP if like.numel() <= _LARGE else _GROUP_OF_LARGE
    size = config.part_size or group
    parts, groups = (-(-len(indices) // length) for length in (size, group))
    names = samples.classes
    attributions = resolve_attributions(config.attributions, runner, (low, high))
    manifest = {
        "model": getattr(model, "__qualname__", type(model).__qualname__),
        "weights": state_hash(model.state_dict()) if isinstance(model, nn.Module) else "unknown (a function)",
        "dataset": getattr(dataset, "name", type(dataset).__qualname__),
        "size": len(indices),
        "of": len(samples),
        "shape": list(like.shape[1:]),
        "classes": None if names is None else [str(name) for name in names],
        "attacks": describe_attacks(config.attacks, config.norm),
        "norm": f"{config.norm:g}",
        "bounds": [low, high],
        "candidates": config.candidates,
        "precision": config.precision,
        "seed": config.seed,
        "part size": size,
    }
    if attributions:
        manifest["attributions"] = [attribution.name for attribution in attributions]
    masks = None
    if config.masks is not None:
        if not attributions:
            raise ValueError("masks: got some without attributions, whose maps they judge")
        masks = Masks(config.masks, samples.dataset, tuple(like.shape[2:]))
        manifest["masks"] = str(config.masks) if isinstance(config.masks, (str, Path)) else type(config.masks).__name__
    if config.certify:
        refused = refusal(runner, like)
        manifest |= {"certify": config.certify} | ({"refused": refused} if refused else {})
        resolved = replace(resolved, certify=None if refused else config.certify)
    return Plan(runner, samples, resolved, indices, parts, groups, classes, like, attributions, masks, manifest)


def _draw(n: int, subset: int | None, seed: int) -> list[int]:
    if n == 0:
        raise ValueError("dataset: got no sample, expected at least one")
    if subset is None:
        return list(range(n))
    if not 1 <= subset <= n:
        raise ValueError(f"subset: got {subset}, expected 1 to {n}, the samples there are")
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:subset].sort().values.tolist()


def _reference(model: Any) -> Tensor:
    """A tensor on the device and of the dtype of the model's parameters."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_meta:
                raise ValueError("model: its parameters are on the meta device, where they have no values; load them")
            if tensor.is_floating_point():
                return tensor
    return torch.empty(0)


def _first(samples: Samples, indices: list[int]) -> Tensor:
    """The first image that can be read."""
    tried: list[Sample] = []
    for index in indices[:_TRIES]:
        sample = samples[index]
        if sample.image is not None:
            return sample.image
        tried.append(sample)
    raise ValueError(
        f"dataset: none of its first {len(tried)} samples can be used; sample {tried[0].id}: {tried[0].error}"
    )


def _try(model: Any, image: Tensor) -> int:
    """The number of classes of ``model``, from a first look at one image."""
    try:  # beside itself, since one alone is no batch for batch norm in training mode, which is refused later by name
        scores = _look(model, torch.cat([image, image]))
    except ValueError:  # some models take one at a time
        scores = _look(model, image.clone())
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"model: returned {type(scores).__name__}, expected scores (N, K); "
            "captum_alignment.study.Logits(model) takes them from an output object"
        )
    if scores.ndim not in (1, 2) or len(scores) > 2 or not scores.numel() or not scores.is_floating_point():
        raise ValueError(
            f"model: returned {scores.dtype} of shape {tuple(scores.shape)} for two images, expected floating scores "
            "(2, K), not labels"
        )
    return max(2, scores[0].numel())


@torch.no_grad()
def _look(model: Any, images: Tensor) -> Any:
    try:
        return model(images)
    except (Exception, SystemExit) as error:  # the model is foreign code
        raise ValueError(
            f"model: raised {type(error).__name__} on images of shape {tuple(images.shape[1:])} ({reason(error)}); do "
            "they have the size and channels that it expects?"
        ) from error
