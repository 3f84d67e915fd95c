"""What becomes of samples without an answer, of attacks that raise, and of models that do."""

import math

import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance
from captum_alignment.robust import RivalSearch
from tests.nets import cnn, images, mlp

NO_ANSWER = pytest.mark.filterwarnings("ignore:no adversarial for")


class Threshold(nn.Module):
    """Rows are classified by their mean; a `BoundaryAttack` finds no start for what lies far on the other side."""

    def forward(self, x):
        side = (x.flatten(1).mean(1) - 0.7) * 10
        return torch.stack([-side, side], 1)


@NO_ANSWER
def test_an_attack_that_raises_for_a_batch_is_tried_on_parts_of_it():
    net, x = cnn(), images(7)

    def picky(model, x, y):
        if (x[:, 0, 0, 0] == x[:, 0, 0, 0].round()).any():
            raise RuntimeError("no luck")
        return 1 - x.round()

    x[[2, 5], 0, 0, 0] = 0
    with pytest.warns(UserWarning, match="attack 'picky' raised RuntimeError: no luck"):
        result = adversarial_distance(net, x, attacks=picky)
    assert [i for i, why in enumerate(result.reason) if why == "attack raised"] == [2, 5]
    rest = torch.tensor([0, 1, 3, 4, 6])
    alone = adversarial_distance(net, x[rest], attacks=picky)
    torch.testing.assert_close(result.distance[rest], alone.distance)
    assert "attack raised 2" in str(result)


@NO_ANSWER
@pytest.mark.filterwarnings("ignore:LinearSearchBlendedUniformNoiseAttack failed")
def test_a_batch_with_one_sample_without_a_start_loses_no_other():
    x = images(8, torch.float32, 1) * 0.1 + 0.85
    x[0] = 0.1
    with pytest.warns(UserWarning, match="attack 'boundary' raised"):
        result = adversarial_distance(Threshold().eval(), x, attacks={"boundary": fb.BoundaryAttack(steps=20)})
    assert result.distance.isfinite().tolist() == [False] + [True] * 7
    assert result.reason == ("attack raised",) + ("",) * 7


@pytest.mark.parametrize("attacks", ["fast", "ddn", fb.LinfPGD(steps=4)])
@pytest.mark.parametrize("call", [9, 12])
def test_a_model_that_fails_is_never_turned_into_distances(attacks, call):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = mlp(), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == call:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return self.net(x)

    with pytest.raises(RuntimeError, match="forward_func raised RuntimeError: CUDA error: an illegal"):
        adversarial_distance(Failing().eval(), torch.rand(5, 6, dtype=torch.float64), attacks=attacks)


@pytest.mark.parametrize("attacks", ["fast", "ddn"])
def test_a_backward_pass_that_fails_is_the_model_s_failure(attacks):
    class Broken(torch.autograd.Function):
        calls = 0

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):  # pyright: ignore
            Broken.calls += 1
            if Broken.calls > 8:
                raise RuntimeError("CUDA error")
            return grad

    net = mlp()
    with pytest.raises(RuntimeError, match="CUDA error"):
        adversarial_distance(lambda x: net(Broken.apply(x)), torch.rand(3, 6, dtype=torch.float64), attacks=attacks)


def test_zero_and_undefined_gradients_are_told_apart_and_found_from_elsewhere():
    line = nn.Linear(6, 3, dtype=torch.float64)

    def net(x):  # the root has no gradient at 0; above 5 everything is flat
        return line(torch.where(x > 5, 5, x).sqrt())

    x = torch.rand(3, 6, dtype=torch.float64) + 1
    x[1, 2] = 0
    x[2] = 6
    with pytest.warns(UserWarning, match=r"may be far too large \((zero gradient|gradient not finite) 1, "):
        result = adversarial_distance(net, x, bounds=(0, 9))
    assert result.reason == ("", "gradient not finite", "zero gradient")
    assert result.distance.isfinite().all()
    assert (net(result.adversarials).argmax(1) != net(x).argmax(1)).all()
    frame = result.to_dataframe()
    assert frame["reason"].tolist() == list(result.reason)


@pytest.mark.parametrize("hidden", ["detached", "rounded"])
def test_a_model_without_a_graph_is_asked_for_decisions(hidden):
    net, x = mlp(), torch.rand(4, 6, dtype=torch.float64)

    def without_graph(x):
        return net(x.detach()).detach() if hidden == "detached" else net((x > 0.5).double())

    with pytest.warns(UserWarning, match=r".*") as caught:
        result = adversarial_distance(without_graph, x, attacks="thorough", bounds=(-3, 4))
    text = " ".join(str(w.message) for w in caught)
    assert "attack 'rival-search' raised ValueError: forward_func: its scores do not depend on the inputs" in text
    assert "no gradient 4" in text
    assert result.by_attack["hop-skip-jump"].isfinite().any()
    assert result.passes["hop-skip-jump"][1] == 0


def test_the_fallback_runs_only_where_it_is_needed():
    net, x = cnn(), images(5)
    result = adversarial_distance(net, x, attacks="thorough")
    assert result.by_attack["hop-skip-jump"].isnan().all()
    assert result.passes["hop-skip-jump"] == (0, 0)
    assert result.reason == ("",) * 5


def test_passes_are_those_that_the_model_saw():
    net, x, seen = cnn(), images(4), []
    handle = net.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    result = adversarial_distance(net, x, attacks={"ddn": fb.DDNAttack(steps=7), "ours": RivalSearch()}, refine=False)
    handle.remove()
    forward = sum(pair[0] for pair in result.passes.values()) * len(x)
    around = 3 * len(x) + 2 * len(x)  # border, prediction, gradient; the border's probe is a pair
    assert forward <= sum(seen) <= forward + around
    assert result.passes["ddn"] == (8 + 1, 7)  # Foolbox's own check after the run, and ours
    backward = result.passes["ours"][1]
    assert 0.9 < backward / result.passes["ours"][0] < 1.2


@NO_ANSWER
@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("attacks", ["fast", "ddn", fb.LinfPGD(steps=5)])
def test_only_features_of_the_mask_change(norm, attacks):
    if attacks == "ddn" and norm != 2:
        pytest.skip("DDN minimises l_2")
    line = nn.Linear(6, 3, dtype=torch.float64)
    x, mask = torch.rand(5, 6, dtype=torch.float64), torch.tensor([1, 0, 1, 1, 0, 1])
    result = adversarial_distance(line, x, attacks=attacks, norm=norm, bounds=(-9, 9), feature_mask=mask)
    assert torch.equal(result.adversarials[:, mask == 0], x[:, mask == 0])
    # Affine: the nearest boundary by the free features alone.
    weight, label = line.weight.detach(), line(x).argmax(1)
    scores = line(x).detach()
    gap = scores.gather(1, label[:, None]) - scores
    size = ((weight[label].unsqueeze(1) - weight) * mask).norm(1 if norm == math.inf else 2, dim=2)
    true = torch.where(gap > 0, gap / size, math.inf).amin(1)
    assert (result.distance >= true * (1 - 1e-9)).all()
    assert (result.distance / true).median() <= (1.01 if attacks == "fast" else 1.5)


def test_masks_of_tuples_and_bad_ones():
    net = lambda a, b: torch.cat([a.sum(1, keepdim=True), b.sum(1, keepdim=True)], 1)  # noqa: E731
    a, b = torch.rand(3, 2, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    mask = (torch.zeros(2, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool))
    result = adversarial_distance(net, (a, b), bounds=(-9, 9), feature_mask=mask)
    assert torch.equal(result.adversarials[0], a)
    assert not torch.equal(result.adversarials[1], b)
    with pytest.raises(ValueError, match=r"feature_mask: got shape \(5,\), expected \(3, 2\) or what broadcasts"):
        adversarial_distance(net, (a, b), bounds=(-9, 9), feature_mask=(torch.ones(5), torch.ones(4)))
    with pytest.raises(ValueError, match="feature_mask: got other values than 0 and 1"):
        adversarial_distance(net, (a, b), bounds=(-9, 9), feature_mask=(torch.ones(2) / 2, torch.ones(4)))
    with pytest.raises(TypeError, match="feature_mask: got Tensor, expected a tensor like each"):
        adversarial_distance(net, (a, b), bounds=(-9, 9), feature_mask=torch.ones(2))
