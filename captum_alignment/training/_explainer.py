"""Robust Attribution Alignment: an explainer that learns, with its student, to generate a robust teacher's maps."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from captum_alignment._core._features import explain, with_features
from captum_alignment._core._inputs import (
    TensorOrTuple,
    Tensors,
    as_images,
    as_tensors,
    check_count,
    check_same_shapes,
    per_sample_norm,
)
from captum_alignment.training._distributed import unwrapped
from captum_alignment.training._forward import kept_buffers, scores_of, twice_differentiable
from captum_alignment.training._graph import Graph
from captum_alignment.training._regularizers import Regularizer


class Explainer(nn.Sequential):
    """A decoder from the features of a layer to a saliency map: transposed convolutions, batch norm, ReLU.

    ``explainer(features)`` maps (N, in_channels, h, w) to (N, out_channels, s·h, s·w), s the product of the strides. A
    last convolution makes the map signed. `ExplainerTraining` and `captum_alignment.attr.GeneratedAttribution` resize
    it to the image.

    Args:
        in_channels: of the features; 512 for ``layer4`` of a ResNet-18.
        out_channels: of the images.
        filters: of each transposed convolution. Zeng et al. have four of 64, 128, 256 and 512; here the widest comes
            first, next to the features.
        strides: how much each of them enlarges the map; one number is that of all.

    Raises:
        ValueError: numbers that are not positive integers; not as many strides as filters.

    Zeng, Kowsar, Erfani & Bailey (2021).

    >>> import torch
    >>> Explainer(512, 3)(torch.rand(2, 512, 4, 4)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        *,
        filters: Sequence[int] = (512, 256, 128, 64),
        strides: int | Sequence[int] = 2,
    ) -> None:
        strides = (strides,) * len(filters) if isinstance(strides, int) else tuple(strides)
        if len(strides) != len(filters) or not filters:
            raise ValueError(
                f"strides: got {len(strides)}, expected one for each of {len(filters)} filters, at least one"
            )
        named = {"in_channels": (in_channels,), "out_channels": (out_channels,), "filters": filters, "strides": strides}
        for name, values in named.items():
            for value in values:
                check_count(name, value)
        blocks = [
            nn.Sequential(
                # This kernel enlarges the map by exactly the stride, whatever the stride is.
                nn.ConvTranspose2d(before, width, stride + 2, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for before, width, stride in zip((in_channels, *filters[:-1]), filters, strides, strict=True)
        ]
        super().__init__(*blocks, nn.Conv2d(filters[-1], out_channels, 3, padding=1))


def explainer_loss(maps: TensorOrTuple, targets: TensorOrTuple) -> Tensor:
    """‖E(h) - g‖_2 of each sample (N,), in at least float32: what an explainer is trained on.

    Not squared, so a map that is far off pulls no harder than one that is nearly right; the gradient at 0 is 0.

    Args:
        maps: E(h), tensor (N, ...) or a tuple of such, one joint vector per sample.
        targets: g, of the same shapes, e.g. `saliency_targets` of an adversarially trained teacher.

    Raises:
        TypeError, ValueError: not floating tensors, shapes that differ.

    Zeng, Kowsar, Erfani & Bailey (2021).

    >>> import torch
    >>> explainer_loss(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    found, wanted = as_tensors(maps, "maps"), as_tensors(targets, "targets")
    check_same_shapes(found, wanted, "targets", of="the maps")
    return per_sample_norm(tuple(a - b.detach().to(a) for a, b in zip(found, wanted, strict=True)), 2)


class ExplainerTraining(Regularizer):
    """Trains an explainer jointly with its student: weight · mean_i ‖E(h(x_i)) - T_i‖_2, h the output of a layer.

    ``regularizer(model, inputs, target, maps)`` like any `Regularizer`, with the maps T as the first of the extras; the
    target is not used. Gradients flow into the explainer and through the features into the model. The explainer's
    parameters belong into the optimizer: in a plain loop ``[*model.parameters(), *explainer.parameters()]``; with
    `RegularizationCallback` make the explainer a submodule of the `LightningModule`, whose layers then are called
    ``"net.layer4"`` and the like.

    Where you write the training step, `scores_and_term` saves the second forward pass.

    Args:
        explainer: from features (N, C, h, w) to maps, which are resized bilinearly to the image: an `Explainer`, or any
            module. It must be on the device of the model. Its batch norm keeps running statistics in this call.
        layer: the name of the layer with the features, as in ``model.named_modules()``.
        weight: λ; 0.35 in the paper. Its scale is that of the maps.

    Raises:
        TypeError: an explainer or, in the call, a model that is not an `nn.Module`; a call without maps.
        ValueError: in the call, no such layer, one that does not run exactly once, or whose output is not (N, C, h, w);
            maps that do not match the images.

    Zeng, Kowsar, Erfani & Bailey (2021).

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    >>> training = ExplainerTraining(Explainer(8, 1, filters=(16, 8)), "1")
    >>> images, labels, maps = torch.rand(5, 1, 8, 8), torch.arange(5), torch.randn(5, 1, 8, 8)
    >>> scores, term = training.scores_and_term(net, images, maps)
    >>> (nn.functional.cross_entropy(scores, labels) + term).backward()
    """

    name = "explainer"

    def __init__(self, explainer: nn.Module, layer: str, weight: float = 0.35) -> None:
        super().__init__(weight)
        if not isinstance(explainer, nn.Module):
            raise TypeError(f"explainer: got {type(explainer).__name__}, expected an nn.Module")
        self.explainer, self.layer = explainer, layer

    def scores_and_term(self, model: nn.Module, inputs: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """What ``model(inputs)`` returns, and the term, from one forward pass: ``loss(scores, labels) + term``."""
        images = as_images(as_tensors(inputs))
        scores, features = with_features(lambda: model(images), unwrapped(model, twice=True), self.layer)
        return scores, self.weight * self._losses(features, images, maps).mean()

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        if not extras:
            raise TypeError("maps: got nothing, expected regularizer(model, inputs, target, maps)")
        return self._losses(cast(_FeatureGraph, graph).features, as_images(graph.inputs), extras[0])

    def _graph(self, model: Any, leaves: Tensors) -> Graph:
        inputs = tuple(x.detach() for x in leaves)  # no gradient with respect to the input is needed
        with twice_differentiable(model), kept_buffers(model):
            scores, features = with_features(lambda: scores_of(model, inputs), model, self.layer)
        return _FeatureGraph(scores, inputs, features)

    def _losses(self, features: Tensor, images: Tensor, maps: Any) -> Tensor:
        targets = as_tensors(maps, "maps")
        check_same_shapes((images,), targets, "maps")
        return explainer_loss(explain(self.explainer, features, images.shape), targets)


class _FeatureGraph(Graph):
    def __init__(self, scores: Tensor, inputs: Tensors, features: Tensor) -> None:
        super().__init__(scores, inputs)
        self.features = features
