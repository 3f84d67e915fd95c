import pytest
import torch
from captum.attr import GradientAttribution, NoiseTunnel
from captum.metrics import sensitivity_max
from torch import nn
from torch.nn import functional as F

from captum_alignment.attr import FullGradient
from captum_alignment.metrics import homogeneous_decomposition
from tests import real
from tests.nets import assert_unchanged, cnn, count_forward_passes, images, mlp, snapshot


def assert_complete(net, x):
    maps, delta = FullGradient(net).attribute(x, return_convergence_delta=True)
    result = homogeneous_decomposition(net, x)
    assert maps.shape == x.shape
    assert (delta.abs() <= 1e-9 * result.scale).all()
    assert ((maps.flatten(1).sum(1) - result.score).abs() <= 1e-9 * result.scale).all()


@pytest.mark.parametrize("name", real.ZOO[:-1])
def test_complete_on_real_networks(zoo, shared, name):
    assert_complete(zoo.load(name).double(), real.images(shared, name, 4))


@pytest.mark.slow
def test_complete_with_a_thousand_classes(zoo, shared):
    assert_complete(zoo.load("imagenet_squeezenet").double(), real.images(shared, "imagenet_squeezenet", 2))


@pytest.mark.parametrize("name", real.TORCHVISION)
def test_complete_on_torchvision_networks(name):
    x = 3 * torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_complete(real.randomised(name, x), x)


@pytest.mark.slow
def test_the_delta_of_a_transformer_is_its_residual():
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    net = real.randomised("vit_b_16", x)
    _, delta = FullGradient(net).attribute(x, return_convergence_delta=True)
    torch.testing.assert_close(delta, -homogeneous_decomposition(net, x).residual)
    assert (delta.abs() > 1e-3).all()


class Small(nn.Module):
    """Two convolutions, the second at half the resolution, and a dense layer."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 2, 2), nn.Linear(3 * 16, 5)
        self.double()

    def forward(self, x, added=(0, 0, 0)):
        x = (self.one(x) + added[0]).relu()
        x = (self.two(x) + added[1]).relu()
        return self.out(x.flatten(1)) + added[2]


def literal_terms(net, x, target):
    """x ⊙ ∇Psi (C, H, W) and every b ⊙ ∂Psi/∂b of one sample, from explicit zeros added at every position."""
    x = x.clone().requires_grad_()
    probes = [torch.zeros(shape, dtype=x.dtype, requires_grad=True) for shape in ((4, 8, 8), (3, 4, 4), (5,))]
    score = net(x.unsqueeze(0), probes)[0, target]
    own, *gradients = torch.autograd.grad(score, [x, *probes])
    biases = [net.one.bias[:, None, None], net.two.bias[:, None, None], net.out.bias]
    return (x * own).detach(), [(b * g).detach() for b, g in zip(biases, gradients, strict=True)]


def test_the_complete_map_is_the_literal_one():
    net, x = Small(), images(3)
    maps = FullGradient(net).attribute(x, 2)
    for i in range(3):
        own, (one, two, out) = literal_terms(net, x[i], 2)
        # At twice the size the bilinear weights of each pixel already have one sum, 4.
        up = F.interpolate(two.sum(0)[None, None], (8, 8), mode="bilinear")[0, 0] / 4
        expected = own + (one.sum(0) + up + out.sum() / 64) / 2
        torch.testing.assert_close(maps[i], expected)


def test_the_absolute_map_is_the_papers():
    net, x = Small(), images(3)
    maps = FullGradient(net, absolute=True).attribute(x, 2)

    def psi(term):
        size = term.abs()
        size = (size - size.min()) / (size.max() - size.min())
        return F.interpolate(size[None], (8, 8), mode="bilinear")[0].sum(0)

    for i in range(3):
        own, (one, two, _) = literal_terms(net, x[i], 2)
        torch.testing.assert_close(maps[i].sum(0), psi(own) + psi(one) + psi(two))
    assert (maps >= 0).all()


@pytest.mark.parametrize("size", [(3, 3), (5, 13), (21, 9)])
def test_complete_at_any_resolution(size):
    class Resized(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn()
            self.shift = nn.Parameter(torch.randn(2, *size, dtype=torch.float64))

        def forward(self, x):
            x = F.interpolate(x, size, mode="bilinear") + self.shift
            return self.net(F.interpolate(x, (8, 8)))

    assert_complete(Resized().eval(), images(3))


def test_dense_and_channels_last_terms():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.out = nn.Linear(2, 3), nn.Linear(3, 4)
            self.double()

        def forward(self, x):
            return self.out(self.mix(x.permute(0, 2, 3, 1)).relu().amax((1, 2)))

    net, x = Last(), images(3)
    assert_complete(net, x)
    # Only where the maximum of some channel lies does the inner bias count; the outer one is spread evenly.
    maps = (
        FullGradient(net).attribute(x, 0)
        - x * torch.autograd.grad(net(y := x.clone().requires_grad_())[:, 0].sum(), y)[0]
    )
    even = (net.out.bias[0] / maps[0].numel()).detach()
    assert ((maps - even).abs() > 1e-12).flatten(1).sum(1).max() <= 3 * 2
    assert_complete(mlp(d=128), images(3))


def test_captum_conventions():
    net, x = cnn(), images(4)
    method = FullGradient(net)
    assert isinstance(method, GradientAttribution)
    assert method.has_convergence_delta()
    assert method.multiplies_by_inputs
    alone, (in_tuple,) = method.attribute(x), method.attribute((x,))
    assert torch.equal(alone, in_tuple)
    assert not FullGradient(net, absolute=True).has_convergence_delta()
    half = FullGradient(cnn(dtype=torch.bfloat16)).attribute(x.bfloat16())
    assert half.dtype == torch.bfloat16


def test_small_model_calls_change_nothing():
    net, x = cnn(), images(7)
    for absolute in (False, True):
        for target in (None, 1, torch.arange(7) % 5):
            whole = FullGradient(net, absolute=absolute).attribute(x, target)
            for size in (1, 3, 7, 9):
                found = FullGradient(net, absolute=absolute, internal_batch_size=size).attribute(x, target)
                torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    sizes = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    FullGradient(net, internal_batch_size=3).attribute(x)
    assert max(sizes) == 3


def test_inside_noise_tunnel_and_captum_metrics():
    net, x = cnn(), images(4)
    target = torch.tensor([0, 1, 2, 0])
    before = snapshot(net)
    for absolute in (False, True):
        method = FullGradient(net, absolute=absolute)
        tunnel = NoiseTunnel(method)
        still = tunnel.attribute(x, nt_samples=2, stdevs=0.0, target=target)
        torch.testing.assert_close(still, method.attribute(x, target))
        noisy: torch.Tensor = tunnel.attribute(x, nt_samples=3, stdevs=0.1, target=target)  # pyright: ignore
        assert noisy.shape == x.shape
        with torch.no_grad():
            change = sensitivity_max(method.attribute, x, perturb_radius=0.01, n_perturb_samples=2)
        assert change.isfinite().all()
    assert_unchanged(net, before)


def test_one_forward_and_one_backward_pass():
    net, calls = cnn(), []
    count_forward_passes(net, calls)
    net[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    FullGradient(net).attribute(images(), return_convergence_delta=True)
    assert calls == ["forward", "backward"]


def test_bad_input_is_named():
    net, x = cnn(), images(2)
    with pytest.raises(ValueError, match="return_convergence_delta"):
        FullGradient(net, absolute=True).attribute(x, return_convergence_delta=True)
    with pytest.raises(ValueError, match="expected one batch of images"):
        FullGradient(mlp()).attribute(torch.rand(2, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected one batch of images"):
        FullGradient(net).attribute((x, x))
    with pytest.raises(ValueError, match="target: got class 9"):
        FullGradient(net).attribute(x, 9)
    with pytest.raises(ValueError, match="training mode"):
        FullGradient(cnn().train()).attribute(x)
