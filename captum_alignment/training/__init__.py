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
>>> loss = torch.nn.functional.cross_entropy(scores, labels) + 1e-3 * penalty.mean()
>>> loss.backward()

A configured object that runs its own forward pass, for any loop:

>>> regularizer = LocalLipschitz(1e-3)
>>> term = regularizer(model, images, labels)
>>> torch.allclose(term, 1e-3 * penalty.mean())
True

And a Lightning callback that adds it to a module's own loss (needs lightning, ``captum-alignment[study]``)::

    Trainer(callbacks=[LipschitzRegularization(1e-3)]).fit(module, loader)

======================== ============================= =====================================================
penalty                  regularizer                   keeps small
======================== ============================= =====================================================
`input_gradient_penalty` `LocalLipschitz`              the input gradient of loss, score or margin
`jacobian_penalty`       `JacobianRegularizer`         all input gradients of the scores
`saliency_penalty`       `InterpretationRegularizer`   the angle to given maps (`saliency_targets`), the length
`margin_penalty`         `LargeMargin`                 what linearized robustness lacks to a margin
`alignment_penalty`      `AlignmentRegularizer`        the angle between input and input gradient
======================== ============================= =====================================================

`ExplainerTraining` is a regularizer too: it trains an `Explainer` with the model, to generate given maps.
`RegularizationCallback` and `SkorchRegularization` take any of them. Adversarial training (`adversarial_examples`,
`AdversarialTraining`) and defensive distillation (`distillation_loss`, `Distillation`) need no second derivative.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use
from captum_alignment.training._adversarial import L2SignPGD, adversarial_examples
from captum_alignment.training._alignment import AlignmentRegularizer, alignment_penalty
from captum_alignment.training._distillation import Distillation, distillation_loss, soft_labels
from captum_alignment.training._explainer import Explainer, ExplainerTraining, explainer_loss
from captum_alignment.training._interpretation import InterpretationRegularizer, saliency_penalty
from captum_alignment.training._jacobian import JacobianRegularizer, jacobian_penalty
from captum_alignment.training._margin import LargeMargin, margin_penalty
from captum_alignment.training._penalties import input_gradient_penalty
from captum_alignment.training._regularizers import LocalLipschitz, Regularizer
from captum_alignment.training._targets import SaliencyTargets, permute_maps, saliency_targets, threshold_maps

if TYPE_CHECKING:
    from captum_alignment.training._adversarial_callback import AdversarialTraining
    from captum_alignment.training._lightning import LipschitzRegularization, RegularizationCallback
    from captum_alignment.training._skorch import SkorchRegularization

__all__ = [
    "AdversarialTraining",
    "AlignmentRegularizer",
    "Distillation",
    "Explainer",
    "ExplainerTraining",
    "InterpretationRegularizer",
    "JacobianRegularizer",
    "L2SignPGD",
    "LargeMargin",
    "LipschitzRegularization",
    "LocalLipschitz",
    "RegularizationCallback",
    "Regularizer",
    "SaliencyTargets",
    "SkorchRegularization",
    "adversarial_examples",
    "alignment_penalty",
    "distillation_loss",
    "explainer_loss",
    "input_gradient_penalty",
    "jacobian_penalty",
    "margin_penalty",
    "permute_maps",
    "saliency_penalty",
    "saliency_targets",
    "soft_labels",
    "threshold_maps",
]

__getattr__ = on_first_use(
    __name__,
    {
        "study": {
            "AdversarialTraining": "_adversarial_callback",
            "LipschitzRegularization": "_lightning",
            "RegularizationCallback": "_lightning",
        },
        "skorch": {"SkorchRegularization": "_skorch"},
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
