"""Robust Attribution Alignment (Zeng et al. 2021): a network that explains itself in one forward pass.

An adversarially trained teacher's SmoothGrad maps are what an explainer learns to generate from the features of a
student, while the student learns to classify. The explainer is a submodule of the student's Lightning module, so the
optimizer trains it too. Needs ``pip install 'captum-alignment[study]'``; the data comes with scikit-learn.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import torch
from captum.attr import Saliency
from digits import images_and_labels
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from captum_alignment.attr import GeneratedAttribution
from captum_alignment.metrics import randomization_check, rank_correlation
from captum_alignment.training import (
    AdversarialTraining,
    Explainer,
    ExplainerTraining,
    RegularizationCallback,
    saliency_targets,
)

TRAIN = 1400


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 4 * 4, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-3)


class SelfExplaining(Classifier):
    def __init__(self):
        super().__init__()
        # A small network, whose features of 4 x 4 pixels need only one doubling to the images of 8 x 8.
        self.explainer = Explainer(64, 1, filters=(64, 64, 32, 16), strides=(2, 1, 1, 1))


def train(module, data, callback, epochs):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(data, batch_size=100, shuffle=True))
    return module.eval()


def main():
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers")  # the data is in memory
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # between lightning and torch
    seed_everything(0, verbose=False)
    images, labels = images_and_labels()
    train_set = TensorDataset(images[:TRAIN], labels[:TRAIN])
    test_set = TensorDataset(images[TRAIN:], labels[TRAIN:])
    x, y = test_set.tensors

    teacher = train(Classifier(), train_set, AdversarialTraining(epsilon=1.0, steps=4), epochs=10)
    with tempfile.TemporaryDirectory() as folder:
        options = {"samples": 10, "threshold": None}
        targets = saliency_targets(teacher, train_set, Path(folder, "train"), **options)
        held_out = saliency_targets(teacher, test_set, Path(folder, "test"), **options)
        wanted = torch.stack([held_out[i][2] for i in range(len(held_out))])

        student = SelfExplaining()
        regularizer = ExplainerTraining(student.explainer, "net.4", weight=0.35)
        train(student, targets, RegularizationCallback(regularizer), epochs=12)

    untrained = SelfExplaining().explainer.eval()
    maps = {
        "generated in one forward pass": GeneratedAttribution(student, student.explainer, "net.4").attribute(x),
        "by an untrained explainer": GeneratedAttribution(student, untrained, "net.4").attribute(x),
        "the student's own gradient": Saliency(student).attribute(x.clone().requires_grad_(), target=y, abs=False),
    }
    with torch.no_grad():
        accuracy = {"teacher": teacher, "student": student}
        accuracy = {name: float((model(x).argmax(1) == y).float().mean()) for name, model in accuracy.items()}
    print("accuracy on held-out digits: " + ", ".join(f"{name} {value:.1%}" for name, value in accuracy.items()))
    print("\nrank correlation with the teacher's SmoothGrad on held-out digits (medians)")
    for name, found in maps.items():
        print(f"{name:<32}{rank_correlation(found, wanted).median():>7.3f}")

    # Do the maps depend on what the student has learnt? On what lies below the features, the explainer being kept; not
    # on the layer above, of which the map knows nothing.
    def generate(model, inputs, target):
        return GeneratedAttribution(model, student.explainer, "net.4").attribute(inputs, target)

    print()
    print(randomization_check(student, generate, x, layers=["net.6", "net.3", "net.0"]))


if __name__ == "__main__":
    main()
