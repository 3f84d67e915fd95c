"""Training for robustness: penalties, configured regularizers, and what adds them to a training loop.

The same term in three forms. A pure function, on a graph that you have built:

>>> import torch
>>> from captum_alignment.training import LocalLipschitz, input_gradient_penalty
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
>>> images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
>>> images.requires_grad_(True).requires_grad
True
>>> scores = model(images)
>>> penalty = input_gradient_penalty(scores, images, labels)
>>> penalty.shape
torch.Size([8])
>>> loss = torch.nn.functional.cross_entropy(scores, labels) + 0.3 * penalty.mean()
>>> loss.backward()

A configured object that runs its own forward pass, for any loop:

>>> regularizer = LocalLipschitz(0.3)
>>> term = regularizer(model, images, labels)
>>> torch.allclose(term, 0.3 * penalty.mean())
True

And a Lightning callback that adds it to a module's own loss, the mean over the batch of one loss per sample (another,
such as a sum, needs ``reduction``; needs lightning, ``captum-alignment[study]``)::

    Trainer(callbacks=[LipschitzRegularization(0.3)]).fit(module, loader)

========================= ============================= =====================================================
penalty                   regularizer                   keeps small
========================= ============================= =====================================================
`input_gradient_penalty`  `LocalLipschitz`              the input gradient of loss, score or margin
`jacobian_penalty`        `JacobianRegularizer`         all input gradients of the scores
`saliency_penalty`        `InterpretationRegularizer`   the angle to given maps (`saliency_targets`), the length
`margin_penalty`          `LargeMargin`                 what linearized robustness lacks to a margin
`alignment_penalty`       `AlignmentRegularizer`        the angle between input and input gradient
`class_gradients_penalty` `PerceptualAlignment`         the angle of each class's gradient to the way to that class
`edge_penalty`            `EdgeAlignment`               the input gradient's share outside of the image's edges
`linear_region_penalty`   `LinearRegions`               what kinks and boundaries lack to a distance
`trades_penalty`          `TRADES`                      how far predictions change nearby; no second derivative
========================= ============================= =====================================================

`ExplainerTraining` is a regularizer too: it trains an `Explainer` with the model, to generate given maps.
`suggest_weights` compares weights by short fits on your own data.
`RegularizationCallback` and `SkorchRegularization` take any of them; tokens are penalised through `LayerInputs`, or in
Lightning through ``layer="embedding"``. Adversarial training (`adversarial_examples`,
`AdversarialTraining`) and defensive distillation (`distillation_loss`, `Distillation`) need no second derivative.
`EvaluationCallback` logs alignment and robustness in Lightning.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use
from captum_alignment.training._adversarial import L2SignPGD, adversarial_examples
from captum_alignment.training._alignment import AlignmentRegularizer, alignment_penalty
from captum_alignment.training._distillation import Distillation, distillation_loss, soft_labels
from captum_alignment.training._explainer import Explainer, ExplainerTraining, explainer_loss
from captum_alignment.training._interpretation import InterpretationRegularizer, saliency_penalty
from captum_alignment.training._jacobian import JacobianRegularizer, jacobian_penalty
from captum_alignment.training._layer_inputs import LayerInputs
from captum_alignment.training._linear_regions import KinkedUnits, LinearRegions, linear_region_penalty
from captum_alignment.training._margin import LargeMargin, margin_penalty
from captum_alignment.training._penalties import input_gradient_penalty
from captum_alignment.training._perceptual import (
    EdgeAlignment,
    PerceptualAlignment,
    class_gradients_penalty,
    edge_maps,
    edge_penalty,
)
from captum_alignment.training._regularizers import LocalLipschitz, Regularizer
from captum_alignment.training._targets import SaliencyTargets, permute_maps, saliency_targets, threshold_maps
from captum_alignment.training._trades import TRADES, trades_penalty
from captum_alignment.training._weights import WeightSweep, suggest_weights

if TYPE_CHECKING:
    from captum_alignment.training._adversarial_callback import AdversarialTraining
    from captum_alignment.training._evaluation_callback import EvaluationCallback
    from captum_alignment.training._lightning import RegularizationCallback
    from captum_alignment.training._lipschitz_callback import LipschitzRegularization
    from captum_alignment.training._skorch import SkorchAdversarialTraining, SkorchRegularization

__all__ = [
    "TRADES",
    "AdversarialTraining",
    "AlignmentRegularizer",
    "Distillation",
    "EdgeAlignment",
    "EvaluationCallback",
    "Explainer",
    "ExplainerTraining",
    "InterpretationRegularizer",
    "JacobianRegularizer",
    "KinkedUnits",
    "L2SignPGD",
    "LargeMargin",
    "LayerInputs",
    "LinearRegions",
    "LipschitzRegularization",
    "LocalLipschitz",
    "PerceptualAlignment",
    "RegularizationCallback",
    "Regularizer",
    "SaliencyTargets",
    "SkorchAdversarialTraining",
    "SkorchRegularization",
    "WeightSweep",
    "adversarial_examples",
    "alignment_penalty",
    "class_gradients_penalty",
    "distillation_loss",
    "edge_maps",
    "edge_penalty",
    "explainer_loss",
    "input_gradient_penalty",
    "jacobian_penalty",
    "linear_region_penalty",
    "margin_penalty",
    "permute_maps",
    "saliency_penalty",
    "saliency_targets",
    "soft_labels",
    "suggest_weights",
    "threshold_maps",
    "trades_penalty",
]

__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_adversarial_callback": ["AdversarialTraining"],
        "_evaluation_callback": ["EvaluationCallback"],
        "_lightning": ["RegularizationCallback"],
        "_lipschitz_callback": ["LipschitzRegularization"],
        "_skorch": ["SkorchAdversarialTraining", "SkorchRegularization"],
    },
    needs={
        "_adversarial_callback": "study",
        "_evaluation_callback": "study",
        "_lightning": "study",
        "_lipschitz_callback": "study",
        "_skorch": "skorch",
    },
)
