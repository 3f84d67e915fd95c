"""For Captum users: does a saliency map show the input, more than chance would?"""

from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from captum.metrics import sensitivity_max
from digits import images_and_labels, trained_net

from captum_alignment import LinearizedRobustness, alignment, linear_analysis
from captum_alignment.metrics import alignment_null

net = trained_net()
images, labels = (tensor[1400:1500] for tensor in images_and_labels())

# Any attribution can be asked; alpha of the paper is that of the signed gradient.
predicted = net(images).argmax(1)
maps = {
    "Saliency, signed": Saliency(net).attribute(images, target=predicted, abs=False),
    "Saliency, absolute": Saliency(net).attribute(images, target=predicted),
    "IntegratedGradients": IntegratedGradients(net, multiply_by_inputs=False).attribute(images, target=predicted),
    "LinearizedRobustness": LinearizedRobustness(net).attribute(images),
    "the same in a NoiseTunnel": NoiseTunnel(LinearizedRobustness(net)).attribute(
        images, stdevs=0.1, nt_samples=10, target=predicted
    ),
}
print(f"{'medians':<28}{'alignment':>10}{'by chance':>10}{'rank':>7}")
for name, attributions in maps.items():
    value, null, _, rank = alignment_null(images, attributions)
    print(f"{name:<28}{value.median():>10.3f}{null.median():>10.3f}{rank.median():>7.2f}")
print(f"normalised by the input's length: {alignment(images, maps['Saliency, signed'], normalize=True).median():.3f}\n")

# The attribution has Captum's interface, so Captum's own metrics take it.
change = sensitivity_max(LinearizedRobustness(net).attribute, images[:20], perturb_radius=0.02)
print(f"median maximal sensitivity of LinearizedRobustness: {change.median():.3f}\n")

# All quantities of the paper at once, from one forward and ten backward passes.
print(linear_analysis(net, images))
