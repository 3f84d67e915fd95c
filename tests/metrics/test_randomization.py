"""Model randomisation against cases whose outcome is known, and against scipy."""

import pytest
import scipy.stats
import torch
from captum.attr import InputXGradient, NoiseTunnel, Saliency
from torch import nn
from torch.nn import functional as F

from captum_alignment.metrics import randomization_check
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs


def saliency(model, inputs, target):
    return Saliency(model).attribute(inputs, target=target, abs=False)


def sobel(model, inputs, target):
    kernel = inputs.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])[None, None]
    return F.conv2d(inputs.sum(1, keepdim=True).detach(), kernel, padding=1).expand_as(inputs)


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_an_edge_detector_does_not_see_the_model(mode):
    found = randomization_check(cnn(), sobel, images(), mode=mode)
    assert (found.similarity == 1).all()
    assert (found.absolute_similarity == 1).all()
    assert found.layers == ("8", "4", "1", "0")


def test_gradients_forget_with_the_model():
    net, x = mlp(), torch.rand(20, 6, dtype=torch.float64)
    found = randomization_check(net, saliency, x)
    assert found.layers == ("5", "3", "1")
    assert found.similarity[-1].mean().abs() < 0.4
    assert found.similarity.mean(1).max() < 0.9


def test_a_single_linear_layer_has_the_correlation_of_its_rows():
    net, x = nn.Linear(30, 4), torch.rand(8, 30)
    drawn = []

    class Recording(nn.Linear):
        def reset_parameters(self):
            super().reset_parameters()
            drawn.append(self.weight.detach().clone())

    recording = Recording(30, 4)
    recording.load_state_dict(net.state_dict())
    drawn.clear()
    found = randomization_check(recording, saliency, x)
    classes = net(x).argmax(1)
    assert torch.equal(found.target, classes)
    old, new = net.weight.detach()[classes].numpy(), drawn[-1][classes].numpy()
    expected = [scipy.stats.spearmanr(u, v).statistic for u, v in zip(old, new, strict=True)]  # pyright: ignore
    torch.testing.assert_close(found.similarity[0], torch.tensor(expected, dtype=torch.float64))
    absolute = [scipy.stats.spearmanr(abs(u), abs(v)).statistic for u, v in zip(old, new, strict=True)]  # pyright: ignore
    torch.testing.assert_close(found.absolute_similarity[0], torch.tensor(absolute, dtype=torch.float64))


class Shift(nn.Module):
    """A layer of biases alone, without ``reset_parameters``."""

    def __init__(self, count):
        super().__init__()
        self.bias = nn.Parameter(torch.arange(count).double())

    def forward(self, x):
        return x + self.bias


def test_modes_and_layers_without_reset_parameters():
    net = nn.Sequential(nn.Linear(6, 5), Shift(5), nn.Linear(5, 3)).double()
    x, seen = torch.rand(4, 6, dtype=torch.float64), []

    def attribute(model, inputs, target):
        seen.append([p.detach().clone() for p in model.parameters()])
        return saliency(model, inputs, target)

    found = randomization_check(net, attribute, x, mode="independent")
    assert found.layers == ("2", "1", "0")
    assert (found.similarity[1] == 1).all()  # of an affine function the gradient does not know the biases
    assert (found.similarity[[0, 2]] < 0.9999).any()
    own = [p.detach() for p in net.parameters()]
    changed = [[not torch.equal(p, q) for p, q in zip(own, step, strict=True)] for step in seen]
    assert changed == [
        [False] * 5,
        [False] * 3 + [True] * 2,
        [False] * 2 + [True] + [False] * 2,
        [True] * 2 + [False] * 3,
    ]
    assert sorted(seen[2][2].tolist()) == [0, 1, 2, 3, 4]  # permuted
    seen.clear()
    randomization_check(net, attribute, x)
    changed = [[not torch.equal(p, q) for p, q in zip(own, step, strict=True)] for step in seen]
    assert changed == [[False] * 5, [False] * 3 + [True] * 2, [False] * 2 + [True] * 3, [True] * 5]


class Backwards(nn.Module):
    """Registered from the top to the bottom, with a container, an unused layer and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)
        self.body = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))
        self.offset = nn.Parameter(torch.rand(6))

    def forward(self, x):
        return self.head(self.body(x + self.offset))


def test_layers_are_found_in_the_order_in_which_they_run_or_named_by_the_caller():
    net, x = Backwards(), torch.rand(3, 6)
    assert randomization_check(net, saliency, x).layers == ("head", "body.2", "body.0", "(root)", "unused")
    seen = []

    def attribute(model, inputs, target):
        seen.append(model)
        return saliency(model, inputs, target)

    assert randomization_check(net, attribute, x, layers=["body"]).layers == ("body",)
    changed = [name for name, p in seen[-1].named_parameters() if not torch.equal(p, net.get_parameter(name))]
    assert changed == ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]


def test_attention_is_randomised_with_its_projection():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    found = randomization_check(Attention().eval(), saliency, torch.rand(3, 4, 6))
    assert set(found.layers) == {"head", "attention", "attention.out_proj"}
    assert found.layers[0] == "head"


def test_noise_of_the_attribution_is_the_same_every_time():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), Shift(3)).double()

    def smooth(model, inputs, target):
        return NoiseTunnel(Saliency(model)).attribute(inputs, target=target, nt_samples=3, stdevs=0.5, abs=False)

    x = torch.rand(4, 6, dtype=torch.float64)
    found = randomization_check(net, smooth, x, layers=["3"])
    assert (found.similarity == 1).all()


def test_only_its_generator_matters():
    net, x = mlp(), torch.rand(5, 6, dtype=torch.float64)
    state = torch.random.get_rng_state()
    first = randomization_check(net, saliency, x)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(77)
    assert torch.equal(randomization_check(net, saliency, x).similarity, first.similarity)
    other = randomization_check(net, saliency, x, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(other.similarity, first.similarity)


def test_the_model_stays_as_it_is_also_after_an_error():
    net, x = cnn(), images(3)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net[0].weight.requires_grad_(False)
    before = snapshot(net)
    with torch.no_grad():
        randomization_check(net, saliency, x, mode="independent")
    assert_unchanged(net, before)
    calls = []

    def failing(model, inputs, target):
        calls.append(model)
        if len(calls) == 3:
            raise RuntimeError("no")
        return saliency(model, inputs, target)

    with pytest.raises(RuntimeError, match="no"):
        randomization_check(net, failing, x)
    assert_unchanged(net, before)
    assert all(model is not net for model in calls)


def test_tuples_extra_arguments_and_targets():
    net, x = TwoInputs(), two_inputs()
    extra = (torch.randn(7, dtype=torch.float64), 2.0)

    def attribute(model, inputs, target):
        return InputXGradient(model).attribute(inputs, target=target, additional_forward_args=extra)

    with torch.inference_mode():
        found = randomization_check(net, attribute, x, None, extra)
    assert torch.equal(found.target, net(*x, *extra).argmax(1))
    assert found.similarity.shape == (3, 7)
    assert randomization_check(net, attribute, x, 1, extra).target.tolist() == [1] * 7


def test_reports():
    found = randomization_check(mlp(), saliency, torch.rand(8, 6, dtype=torch.float64), mode="independent")
    frame = found.to_dataframe()
    assert list(frame) == ["layer", "sample", "target", "similarity", "absolute_similarity"]
    row = frame[(frame["layer"] == "3") & (frame["sample"] == 6)].iloc[0]
    assert row["similarity"] == float(found.similarity[1, 6])
    assert row["target"] == int(found.target[6])
    assert len(str(found).splitlines()) == 5
    assert "independent" in str(found)


def test_bad_input_is_named():
    net, x = mlp(), torch.rand(2, 6, dtype=torch.float64)
    with pytest.raises(TypeError, match="model: got function"):
        randomization_check(lambda x: net(x), saliency, x)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="layer: got 'head', expected one of 0, 1, 2"):
        randomization_check(net, saliency, x, layers=["head"])
    with pytest.raises(ValueError, match="layers: got no names"):
        randomization_check(net, saliency, x, layers=[])
    with pytest.raises(ValueError, match="mode: got 'all'"):
        randomization_check(net, saliency, x, mode="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="model: has no parameters"):
        randomization_check(nn.Flatten(), saliency, x)
    with pytest.raises(TypeError, match="attributions: got NoneType"):
        randomization_check(net, lambda m, x, t: None, x)  # pyright: ignore[reportArgumentType]


def test_a_single_output_works_in_captums_form():
    for shape in ((-1,), (-1, 1)):
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Unflatten(0, shape), nn.Flatten(0))
        net = net if shape == (-1,) else net[:3]
        for target in (None, 0, 1):
            assert randomization_check(net, saliency, torch.rand(20, 6), target).similarity[-1].mean() < 0.9


@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.spectral_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
def test_parametrised_layers_are_randomised(wrap):
    torch.manual_seed(0)
    net = nn.Sequential(wrap(nn.Linear(16, 16)), nn.ReLU(), wrap(nn.Linear(16, 16))).eval()
    found = randomization_check(net, saliency, torch.rand(20, 16))
    assert found.layers == ("2", "0")
    assert found.similarity[-1].median().abs() < 0.5


def test_a_module_that_keeps_its_activation_is_copied():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.kept = mlp(), {}

        def forward(self, x):
            self.kept["last"] = [self.net(x)]
            return self.kept["last"][0]

    net, x = Keeping(), torch.rand(5, 6, dtype=torch.float64)
    net(x)
    expected = randomization_check(net.net, saliency, x).similarity
    assert torch.equal(randomization_check(net, saliency, x).similarity, expected)


def test_maps_of_another_model_and_deltas_are_refused():
    net, x = mlp(), torch.rand(4, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="attribute: runs the original model"):
        randomization_check(net, lambda m, x, t: saliency(net, x, t), x)
    assert not any(module._forward_pre_hooks for module in net.modules())
    with pytest.raises(ValueError, match="attribute: got a pair"):
        randomization_check(net, lambda m, x, t: (saliency(m, x, t), torch.zeros(4)), x)
    with pytest.raises(ValueError, match="attribute: got a pair"):
        randomization_check(net, lambda m, x, t: ((saliency(m, x, t),), torch.zeros(4)), (x,))


def test_a_pair_of_maps_is_no_delta():
    net, x = mlp(), torch.rand(4, 6, dtype=torch.float64)

    def halves(model, inputs, target):
        return saliency(model, inputs, target).split(3, 1)

    found, whole = randomization_check(net, halves, x), randomization_check(net, saliency, x)
    assert torch.equal(found.similarity, whole.similarity)


def test_a_parametrised_layer_that_cannot_forget_is_refused():
    for bias in (False, True):
        stuck = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1, bias=bias))
        net = nn.Sequential(nn.Linear(6, 1), stuck, nn.Linear(1, 3))
        with pytest.raises(ValueError, match="layers: '1': the parametrised ParametrizedLinear has the same values"):
            randomization_check(net, saliency, torch.rand(4, 6))
        randomization_check(net, saliency, torch.rand(4, 6), layers=["2", "0"])
