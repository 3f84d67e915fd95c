from typing import Any

import pytest
import torch
import torchvision
from captum.attr import Attribution, NoiseTunnel
from captum.metrics import sensitivity_max
from torch import nn
from torch.nn import functional as F

from captum_alignment.attr import GeneratedAttribution
from captum_alignment.training import Explainer
from tests.nets import assert_unchanged, cnn, count_forward_passes, images, snapshot


def decoder(channels=8, out=2):
    return Explainer(channels, out, filters=(6, 4), strides=(2, 1)).double().eval()


def generated(layer="3") -> Any:
    return GeneratedAttribution(cnn(), decoder(), layer)


@pytest.mark.parametrize("layer", ["2", "3", "4"])
def test_is_the_explainer_on_the_features_resized_to_the_image(layer):
    method, x = generated(layer), images()
    features = method.forward_func[: int(layer) + 1](x)
    expected = F.interpolate(method.explainer(features), (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(method.attribute(x), expected)
    assert not method.attribute(x).requires_grad
    assert isinstance(method, Attribution)


def test_takes_one_forward_pass_and_no_backward():
    method, calls = generated(), []
    count_forward_passes(method.forward_func, calls, "model")
    count_forward_passes(method.explainer, calls, "explainer")
    x = images().requires_grad_()
    method.attribute(x, target=1)
    assert calls == ["model", "explainer"]
    assert x.grad is None


def test_resnet18_at_layer4():
    net = torchvision.models.resnet18(num_classes=10).eval()
    x = torch.rand(2, 3, 64, 96)
    maps = GeneratedAttribution(net, Explainer(512, 3).eval(), "layer4").attribute(x, target=torch.tensor([1, 2]))
    assert maps.shape == x.shape
    assert maps.dtype == torch.float32
    half = GeneratedAttribution(net.bfloat16(), Explainer(512, 3).eval(), "layer4").attribute(x.bfloat16())
    assert half.dtype == torch.bfloat16


def test_tensor_in_tensor_out_tuple_in_tuple_out():
    method, x = generated(), images(3)
    alone, (in_tuple,) = method.attribute(x), method.attribute((x,))
    assert torch.equal(alone, in_tuple)


def test_the_target_is_ignored_and_extra_arguments_are_passed_on():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn()

        def forward(self, x, shift):
            return self.net(x + shift)

    net, x, shift = Shifted().eval(), images(3), torch.rand(3, 1, 1, 1, dtype=torch.float64)
    method = GeneratedAttribution(net, decoder(), "net.3")
    expected = GeneratedAttribution(net.net, method.explainer, "3").attribute(x + shift)
    torch.testing.assert_close(method.attribute(x, [0, 1, 2], shift), expected)


def test_inside_noise_tunnel_and_sensitivity():
    method, x = generated(), images(3)
    before = snapshot(method.forward_func), snapshot(method.explainer)
    still: Any = NoiseTunnel(method).attribute(x, nt_samples=2, stdevs=0.0, target=torch.tensor([0, 1, 2]))
    torch.testing.assert_close(still, method.attribute(x))
    noisy: Any = NoiseTunnel(method).attribute(x, nt_type="vargrad", nt_samples=4, stdevs=0.1, target=0)
    assert noisy.shape == x.shape
    assert (noisy >= 0).all()
    change: torch.Tensor = sensitivity_max(method.attribute, x, perturb_radius=0.01, n_perturb_samples=3)
    assert change.shape == (3,)
    assert (change > 0).all()
    assert_unchanged(method.forward_func, before[0])
    assert_unchanged(method.explainer, before[1])


def test_works_under_inference_mode():
    method, x = generated(), images(3)
    with torch.inference_mode():
        inside = method.attribute(x)
    torch.testing.assert_close(inside, method.attribute(x))


def test_the_layer_is_named_in_errors():
    net, x = cnn(), images(2)
    with pytest.raises(ValueError, match=r"layer: got 'layer4', expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8$"):
        GeneratedAttribution(net, decoder(), "layer4")
    deep = torchvision.models.resnet18(num_classes=10)
    with pytest.raises(ValueError, match=r"expected one of conv1, bn1, relu, .* and \d+ more$"):
        GeneratedAttribution(deep, decoder(), "layer5")
    with pytest.raises(TypeError, match="model: got function"):
        GeneratedAttribution(lambda x: net(x), decoder(), "3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"layer: '6' puts out shape \(2, 32\), expected a feature map"):
        GeneratedAttribution(net, decoder(), "6").attribute(x)

    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.unused = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.act(self.act(x)).flatten(1)

    for layer, times in {"act": 2, "unused": 0}.items():
        with pytest.raises(ValueError, match=f"layer: '{layer}' ran {times} times"):
            GeneratedAttribution(Reused(), decoder(), layer).attribute(x)


def test_mutates_nothing_even_after_an_error():
    net, x = cnn(), images(2)
    before = snapshot(net)
    wrong = GeneratedAttribution(net, decoder(channels=5), "3")
    with pytest.raises(RuntimeError):
        wrong.attribute(x)
    with pytest.raises(ValueError, match=r"explainer: returned \(2, 3, 8, 8\) for images"):
        GeneratedAttribution(net, decoder(out=3), "3").attribute(x)
    assert_unchanged(net, before)


def test_training_mode_and_other_inputs_are_refused():
    method, x = generated(), images(2)
    with pytest.raises(ValueError, match=r"inputs: got shapes \[\(2, 128\)\], expected one batch of images"):
        method.attribute(x.flatten(1))
    method.explainer.train()
    with pytest.raises(ValueError, match=r"explainer: BatchNorm2d '0\.1'.* in training mode.*call explainer\.eval"):
        method.attribute(x)
    method.forward_func.train()
    with pytest.raises(ValueError, match=r"forward_func: .* is in training mode.*call model\.eval"):
        method.attribute(x)
