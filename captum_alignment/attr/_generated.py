"""Saliency maps that a trained explainer generates from the features of a network."""

from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_alignment._core._captum import log_usage
from captum_alignment._core._features import explain, find_layer, with_features
from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import InputsT, Tensors, as_images, as_tensors, like_inputs
from captum_alignment._core._model import call
from captum_alignment._core._repeatable import check_repeatable


class GeneratedAttribution(Attribution):
    """The maps of Robust Attribution Alignment (Zeng et al. 2021): one forward pass, no gradient.

    An explainer, trained by `captum_alignment.training.ExplainerTraining`, turns the features of a layer into the map
    that it has learnt to expect: for each image that of one class, the label of the training maps.

    Args:
        model: the network that the explainer was trained with.
        explainer: from features (N, C, h, w) to maps (N, channels of the image, h', w'), which are resized bilinearly
            to the image, e.g. a `captum_alignment.training.Explainer`.
        layer: the name of the layer with the features, as in ``model.named_modules()``.

    Raises:
        TypeError: a model that is not an `nn.Module`. ValueError: no such layer.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    >>> explainer = nn.ConvTranspose2d(8, 3, 4, stride=2)
    >>> GeneratedAttribution(net, explainer, "1").attribute(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 3, 8, 8])
    """

    def __init__(self, model: nn.Module, explainer: nn.Module, layer: str) -> None:
        super().__init__(model)
        find_layer(model, layer)
        self.explainer, self.layer = explainer, layer

    @log_usage()  # NoiseTunnel reaches through this decorator
    def attribute(  # pyright: ignore[reportIncompatibleVariableOverride]
        self,
        inputs: InputsT,
        target: Any = None,  # noqa: ARG002
        additional_forward_args: Any = None,
    ) -> InputsT:
        """Detached signed maps, shaped like ``inputs`` (a 1-tuple for a 1-tuple).

        Args:
            inputs: floating images (N, C, H, W).
            target: accepted, as Captum passes it, and *ignored*: the explainer knows one map per image.
            additional_forward_args: passed on to the model after ``inputs``.

        Raises:
            TypeError: inputs that are not floating.
            ValueError: inputs that are not one batch of images, or not finite; batch norm or dropout of model or
                explainer in training mode; a layer that does not run exactly once, or whose output is not a feature map
                (N, C, h, w); an explainer that returns maps with another number of channels.
        """
        as_images(as_tensors(inputs))
        tensors = checked_inputs(self.forward_func, inputs, additional_forward_args)
        images = tensors[0]
        with torch.no_grad():
            _, features = with_features(
                lambda: call(self.forward_func, tensors, additional_forward_args),
                self.forward_func,
                self.layer,
            )

            def maps_of(x: Tensors, _args: Any) -> Tensor:
                return explain(self.explainer, x[0], torch.Size((len(x[0]), *images.shape[1:])))

            check_repeatable(maps_of, (features,), model=self.explainer, name="explainer")
            maps = maps_of((features,), None)
        return like_inputs((maps.to(images.dtype),), inputs)
