"""The network of the study and its training objective."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

#: What the layers of `SmallNet` are called in figures.
LAYERS = {"0": "convolution 1", "3": "convolution 2", "6": "convolution 3", "10": "dense 1", "13": "dense 2"}


class SmallNet(nn.Sequential):
    """The MNIST network of Etmann et al. 2019: images (N, C, H, W) of at least 8 x 8 to scores (N, K).

    Three 3 x 3 convolutions of 32, 64 and 128 channels, each with ReLU and 2 x 2 max pooling; a dense layer of 128 with
    ReLU and dropout .5; a dense layer of K.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        channels, height, width = image_shape
        if min(height, width) < 8:
            raise ValueError(f"image_shape: got {image_shape}, expected at least 8 x 8 pixels (three poolings)")
        layers: list[nn.Module] = []
        for before, after in ((channels, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        features = 128 * (height // 8) * (width // 8)
        head = [nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, classes)]
        super().__init__(*layers, *head)


class Training(Protocol):
    """How a network is trained; `StudyConfig` and `Retraining` say so."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def decay_every(self) -> int | None: ...
    @property
    def weight_decay(self) -> float: ...


def cross_entropy(scores: Tensor, _images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores, labels)


class Classifier(LightningModule):
    """Training of ``network`` on batches (images, labels, ...) with the optimizer that ``config`` names.

    Args:
        loss: of the scores, images and labels of a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Training,
        loss: Callable[[Tensor, Tensor, Tensor], Tensor] = cross_entropy,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.loss = loss

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's names
        images, labels = batch[:2]
        return self.loss(self(images), images, labels)

    def configure_optimizers(self) -> Any:
        config, parameters = self.config, self.network.parameters()
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                parameters, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
            )
        else:
            optimizer = torch.optim.Adam(parameters, config.learning_rate, weight_decay=config.weight_decay)
        if config.decay_every is None:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        else:
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.decay_every, gamma=0.1)
        return [optimizer], [schedule]
