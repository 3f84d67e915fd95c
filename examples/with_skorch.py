"""With skorch: a callback in the net's list; the history records the term and the mean input gradient."""

import sys

import torch
from digits import images_and_labels
from torch import nn

from captum_alignment.training import LocalLipschitz

print("A scikit-learn estimator with a callback:")
print("    NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss,")
print("                        callbacks=[SkorchRegularization(LocalLipschitz(0.1))])\n")
try:
    from skorch import NeuralNetClassifier

    from captum_alignment.training import SkorchRegularization
except ImportError:
    print("skorch is not installed: pip install 'captum-alignment[skorch]'")
    sys.exit()

torch.manual_seed(0)
images, labels = images_and_labels()
net = NeuralNetClassifier(
    nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=3e-3,
    batch_size=50,
    max_epochs=6,
    train_split=None,
    verbose=0,
    callbacks=[SkorchRegularization(LocalLipschitz(0.1), schedule=lambda batch: min(1.0, batch / 50))],
)
net.fit(images[:1400], labels[:1400])
for epoch in net.history:
    batches = epoch["batches"][1:]
    term, size = (
        sum(batch[name] for batch in batches) / len(batches)
        for name in ("local_lipschitz", "local_lipschitz_gradient_norm")
    )
    print(f"epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}, term {term:.3f}, gradient {size:.3f}")
print(f"accuracy on the last 397 digits {net.score(images[1400:], labels[1400:]):.1%}")
