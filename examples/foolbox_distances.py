"""For Foolbox users: how far is the decision boundary, per sample, with every claim checked?"""

import foolbox
from digits import images_and_labels, trained_net

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import GradientAttack

net = trained_net()
images, labels = (tensor[1400:1450] for tensor in images_and_labels())
linearized = linear_analysis(net, images).linearized_robustness
print(f"median linearized robustness {linearized.median():.3f}\n")


def brighter(model, x, y):  # noqa: ARG001 - an attack is called with all three
    return (x + 0.5).clamp(0, 1)


# The smallest verified distance over a portfolio, in l_2 and in l_inf.
print(adversarial_distance(net, images, attacks="fast"), "\n")
print(adversarial_distance(net, images, attacks="fast", norm=float("inf")), "\n")

# Your own choice: Foolbox attacks that minimise, one at a fixed epsilon (minimised for you), and a plain function.
result = adversarial_distance(
    net,
    images,
    attacks={
        "ddn": foolbox.attacks.DDNAttack(steps=50),
        "pgd": foolbox.attacks.L2PGD(steps=20),
        "brightness": brighter,
    },
)
print(result)
print(result.to_dataframe().head(), "\n")

# And the other way round: the paper's gradient attack in plain Foolbox code.
model = foolbox.PyTorchModel(net, bounds=(0, 1), device=images.device)
_, adversarials, success = GradientAttack()(model, images, labels, epsilons=None)
print(f"GradientAttack finds {int(success.sum())} of {len(images)}")
