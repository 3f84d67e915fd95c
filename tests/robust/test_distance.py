import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.robust import RivalSearch
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs

NORMS = [1, 2, math.inf]
WIDE = (-100, 100)
#: What is tested is something else than the warning that counts samples without an answer.
NO_ANSWER = pytest.mark.filterwarnings("ignore:no adversarial for")


def linear(k=3, d=5):
    return nn.Linear(d, k, dtype=torch.float64)


def check(net, x, result, norm, bounds=(0, 1), target=None):
    """What a result promises, asked of the model itself."""
    label = net(x).argmax(1) if target is None else target
    found = result.distance.isfinite()
    adversarials = result.adversarials
    assert (adversarials >= bounds[0]).all()
    assert (adversarials <= bounds[1]).all()
    assert (net(adversarials).argmax(1) != label)[found].all()
    size = (adversarials - x).flatten(1).norm(norm, dim=1)
    torch.testing.assert_close(size[found], result.distance[found])
    assert torch.equal(adversarials[~found], x[~found])
    best = torch.stack(list(result.by_attack.values())).amin(0)
    assert torch.equal(best.isfinite(), found)
    assert (result.distance[found] <= best[found]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_affine_scores_reach_the_linearized_robustness(norm):
    net, x = linear(), torch.randn(12, 5, dtype=torch.float64)
    result = adversarial_distance(net, x, norm=norm, bounds=WIDE)
    rho = linear_analysis(net, x, norm=norm).linearized_robustness
    assert (result.distance >= rho * (1 - 1e-9)).all()  # an upper bound of the true distance
    excess = result.distance / rho - 1
    assert excess.median() < 1e-3
    assert excess.max() < 0.03
    check(net, x, result, norm, WIDE)


@pytest.mark.parametrize(
    ("attacks", "norm"), [("fast", 1), ("fast", 2), ("fast", math.inf), ("paper", 2), ("paper", math.inf)]
)
def test_portfolios_keep_their_promises(attacks, norm):
    net, x = cnn(dtype=torch.float32), images(4, torch.float32)
    before = snapshot(net)
    result = adversarial_distance(net, x, attacks=attacks, norm=norm)
    check(net, x, result, norm)
    assert_unchanged(net, before)
    assert not result.errors
    assert set(result.by_attack) == set(result.names)
    for i in range(4):
        assert result.by_attack[result.names[int(result.attack[i])]][i].isfinite()
        assert float(result.distance[i]) <= min(float(column[i]) for column in result.by_attack.values())


def test_together_attacks_come_as_near_as_the_nearest_of_them_alone():
    """Also where the farther point has the nearer segment: class 1 is beyond 1 on one side, beyond .2 on the other."""

    def net(x):
        return torch.stack([0 * x[:, 0], ((x - 1).relu() + (-0.2 - x).relu()).sum(1)], 1)

    x = torch.zeros(3, 1, dtype=torch.float64)
    attacks = {"near": lambda model, x, y: x + 1.01, "far": lambda model, x, y: x - 1.2}
    alone = {name: adversarial_distance(net, x, attacks={name: one}, bounds=(-2, 2)) for name, one in attacks.items()}
    result = adversarial_distance(net, x, attacks=attacks, bounds=(-2, 2))
    assert torch.equal(result.distance, torch.minimum(alone["near"].distance, alone["far"].distance))
    torch.testing.assert_close(result.distance, torch.full_like(result.distance, 0.2), rtol=1e-3, atol=0)
    assert result.attack.tolist() == [1, 1, 1]
    assert {name: column[0].item() for name, column in result.by_attack.items()} == {"near": 1.01, "far": 1.2}


@NO_ANSWER
def test_parameters_never_get_gradients_and_random_state_stays():
    net, x = mlp(dtype=torch.float32), torch.rand(3, 6)
    state = torch.get_rng_state()
    first = adversarial_distance(net, x, attacks=[fb.LinfPGD(steps=5)], norm=math.inf)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = adversarial_distance(net, x, attacks=[fb.LinfPGD(steps=5)], norm=math.inf)
    assert torch.equal(first.distance, again.distance)
    assert all(p.grad is None for p in net.parameters())


def test_a_lambda_around_a_model_gets_no_parameter_gradients_either():
    net = mlp(dtype=torch.float32)
    adversarial_distance(lambda x: 2 * net(x), torch.rand(3, 6))
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@NO_ANSWER
@pytest.mark.parametrize("refine", [True, False])
def test_refinement_never_makes_it_worse(refine):
    net, x = cnn(), images(6)
    far = (x.round() - 1).abs()  # a callable that jumps to the opposite corner

    def corner(model, x, y):
        assert isinstance(model, nn.Module)
        assert model(x).shape == (len(x), 5)
        return far[: len(x)]

    result = adversarial_distance(net, x, attacks={"corner": corner}, refine=refine)
    found = result.distance.isfinite()
    assert found.any()
    label = net(x).argmax(1)
    raw = torch.where(net(far).argmax(1) != label, (far - x).flatten(1).norm(dim=1), math.inf)
    torch.testing.assert_close(result.by_attack["corner"], raw)
    if refine:
        assert (result.distance[found] < raw[found]).all()
        # A further bisection step gains less than a thousandth.
        shorter = torch.lerp(x, result.adversarials, 0.999)
        assert (net(shorter).argmax(1) == label)[found].all()
    else:
        assert torch.equal(result.distance, raw)


@NO_ANSWER
def test_nothing_an_attack_claims_is_believed():
    net, x = cnn(), images(4)
    outside = torch.full_like(x, 1.5)
    cases = {
        "input": lambda m, x, y: x,
        "nan": lambda m, x, y: torch.full_like(x, math.nan),
        "outside": lambda m, x, y: outside,
        "zeros-if-same-class": lambda m, x, y: x * 0.999999,
    }
    with pytest.warns(UserWarning, match="attack '(nan|outside)' raised ValueError: returned") as caught:
        result = adversarial_distance(net, x, attacks=cases)
    assert sum("raised" in str(w.message) for w in caught) == 2
    assert result.errors == {
        "nan": "ValueError: returned NaN or infinity",
        "outside": "ValueError: returned images outside the bounds (0.0, 1.0)",
    }
    for name in ("input", "nan", "outside"):
        assert result.by_attack[name].isposinf().all()
    check(net, x, result, 2)


@NO_ANSWER
def test_one_unusable_image_is_named_and_costs_no_other():
    net, x = cnn(), images(3)
    ddn = fb.DDNAttack()

    def partly(model, x, y):
        found = ddn(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=None)[0]
        return torch.cat([x[:1] * math.nan, found[1:]])

    with pytest.warns(UserWarning, match="attack 'partly' raised ValueError: returned NaN or infinity"):
        result = adversarial_distance(net, x, attacks={"partly": partly})
    assert result.distance.isfinite().tolist() == [False, True, True]


@NO_ANSWER
def test_an_epsilon_search_names_unusable_images():
    class Outside(fb.LinfPGD):
        def run(self, model, inputs, criterion, *, epsilon, **kwargs):
            return super().run(model, inputs, criterion, epsilon=epsilon, **kwargs) + 2

    with pytest.warns(UserWarning, match=r"attack 'mine' raised ValueError: returned images outside the bounds \(0"):
        result = adversarial_distance(cnn(), images(2), attacks={"mine": Outside(steps=2)}, norm=math.inf)
    assert result.distance.isposinf().all()


@NO_ANSWER
def test_scores_that_turn_nan_are_no_success():
    def breaks(x):
        return torch.stack([x.sum(1), (0.5 - x).sum(1) * (0.9 - x[:, 0]).sqrt()], 1)

    x = torch.full((2, 3), 0.8)
    result = adversarial_distance(breaks, x, attacks={"far": lambda m, x, y: torch.ones_like(x)})
    assert result.distance.isposinf().all()


def test_attacks_that_raise_or_return_another_shape_are_named_and_lose_nothing():
    net, x = cnn(), images(3)

    def broken(model, x, y):
        raise RuntimeError("no luck")

    attacks = {"broken": broken, "shape": lambda m, x, y: x[:0], "none": lambda m, x, y: None, "ddn": fb.DDNAttack()}
    with pytest.warns(UserWarning, match="attack '(broken|shape|none)' raised") as caught:
        result = adversarial_distance(net, x, attacks=attacks)
    assert sum("raised" in str(w.message) for w in caught) == 3
    assert result.errors["broken"] == "RuntimeError: no luck"
    assert "returned (0, 2, 8, 8), expected adversarials of shape (1, 2, 8, 8)" in result.errors["shape"]
    assert result.distance.isfinite().all()
    assert (result.attack == 3).all()


@NO_ANSWER
def test_optimality_gap_is_1_for_the_best_and_inf_for_a_failure():
    net, x = cnn(), images(4)
    result = adversarial_distance(net, x, attacks={"none": lambda m, x, y: x, "ddn": fb.DDNAttack()}, refine=False)
    gap = result.optimality_gap()
    assert gap["none"].isposinf().all()
    assert (gap["ddn"] == 1).all()
    assert adversarial_distance(net, x, attacks={"none": lambda m, x, y: x}).optimality_gap()["none"].isposinf().all()


@NO_ANSWER
def test_an_epsilon_search_needs_finite_bounds_and_says_so():
    net, x = cnn(), images(2)
    with pytest.warns(UserWarning, match=r"raised ValueError: bounds: got \(-inf, inf\), expected finite"):
        adversarial_distance(net, x, attacks=fb.LinfPGD(steps=2), norm=math.inf, bounds=(-math.inf, math.inf))


def test_out_of_memory_names_the_way_out():
    def hungry(model, x, y):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="internal_batch_size"):
        adversarial_distance(cnn(), images(2), attacks=hungry)


def test_a_class_that_is_not_predicted_is_at_distance_zero():
    net, x = cnn(), images(5)
    label = net(x).argmax(1)
    target = label.clone()
    target[1] = (label[1] + 1) % 5
    result = adversarial_distance(net, x, target)
    assert result.distance[1] == 0
    assert result.attack[1] == -1
    assert torch.equal(result.adversarials[1], x[1])
    assert all(column[1].isnan() for column in result.by_attack.values())
    assert (result.distance[[0, 2, 3, 4]] > 0).all()
    torch.testing.assert_close(result.distance[2:], adversarial_distance(net, x).distance[2:], rtol=0.05, atol=0)


def test_fixed_epsilon_attacks_are_minimised_per_sample():
    net, x = linear(), torch.rand(9, 5, dtype=torch.float64)
    rho = linear_analysis(net, x, norm=math.inf).linearized_robustness
    result = adversarial_distance(
        net, x, attacks=fb.LinfPGD(steps=40, random_start=False), norm=math.inf, bounds=(-4, 5), refine=False
    )
    assert (result.distance >= rho * (1 - 1e-9)).all()
    assert (result.distance <= rho * 1.02).all()
    repeated = adversarial_distance(net, x, attacks=fb.LinfPGD(steps=4).repeat(2), norm=math.inf, bounds=(-4, 5))
    assert repeated.distance.isfinite().all()


def test_fixed_epsilon_grid_takes_the_first_of_several_successes():
    class Bands(fb.LinfFastGradientAttack):
        """Succeeds for eps in (0.1, 0.2) and above 0.6 only."""

        def run(self, model, inputs, criterion, *, epsilon, **kwargs):
            works = 0.1 < epsilon < 0.2 or epsilon > 0.6
            return inputs - epsilon if works else inputs

    def net(x):
        return torch.stack([x.sum(1) - 3.1, 3.1 - x.sum(1)], 1)

    x = torch.full((3, 4), 0.8)
    # The doubling grid of (0, 1) holds 1/8, inside the lower band.
    result = adversarial_distance(net, x, attacks=Bands(), norm=math.inf, refine=False)
    assert ((result.distance > 0.1) & (result.distance < 0.126)).all()


def test_tuple_inputs_and_additional_arguments():
    net, x = TwoInputs(), two_inputs()
    shift = torch.randn(7, dtype=torch.float64)
    result = adversarial_distance(net, x, None, (shift, 2.0), internal_batch_size=4, bounds=(-5, 5))
    assert [a.shape for a in result.adversarials] == [t.shape for t in x]
    label = net(*x, shift, 2.0).argmax(1)
    assert (net(*result.adversarials, shift, 2.0).argmax(1) != label).all()
    joint = torch.cat([(a - t).flatten(1) for a, t in zip(result.adversarials, x, strict=True)], 1).norm(dim=1)
    torch.testing.assert_close(joint, result.distance)
    rho = linear_analysis(net, x, None, (shift, 2.0)).linearized_robustness
    assert 0.5 < (result.distance / rho).median() < 2


@pytest.mark.parametrize(("norm", "name"), [(1, "fast"), (2, "ddn"), (math.inf, "gradient")])
def test_a_tuple_is_attacked_as_one_joint_vector(norm, name):
    net, (a, b) = TwoInputs(), two_inputs(3)
    joint = torch.cat([a, b.flatten(1)], 1)
    apart = adversarial_distance(net, (a, b), attacks=name, norm=norm)
    together = adversarial_distance(lambda z: net(z[:, :4], z[:, 4:].reshape(-1, 2, 4)), joint, attacks=name, norm=norm)
    assert not apart.errors
    assert apart.distance.isfinite().all()
    assert torch.equal(apart.distance, together.distance)


@NO_ANSWER
@pytest.mark.parametrize("norm", NORMS)
def test_samples_of_one_number(norm):
    net, x = linear(3, 1), torch.rand(6, dtype=torch.float64)
    mask = torch.tensor([1, 1, 1, 0, 0, 0])
    flat, whole = (
        adversarial_distance(f, t, norm=norm, bounds=WIDE, attacks=["fast", lambda model, x, y: x + 50], feature_mask=m)
        for f, t, m in ((lambda x: net(x.unsqueeze(1)), x, mask), (net, x.unsqueeze(1), mask.unsqueeze(1)))
    )
    assert torch.equal(flat.distance, whole.distance)
    assert flat.distance.isfinite().tolist() == [True] * 3 + [False] * 3
    assert flat.adversarials.shape == (6,)


class Labelled(torch.Tensor):
    """A tensor that carries metadata, and its class through every operation."""


def test_subclasses_of_tensors_are_tensors():
    net, x = cnn(), images(3)
    plain, found = (adversarial_distance(net, t, attacks=["fast", "ddn"]) for t in (x, x.as_subclass(Labelled)))
    assert not found.errors
    assert torch.equal(found.distance, plain.distance)


def test_tensor_is_one_tuple():
    net, x = cnn(), images(3)
    alone, tupled = adversarial_distance(net, x), adversarial_distance(net, (x,))
    assert torch.equal(alone.distance, tupled.distance)
    assert torch.equal(alone.adversarials, tupled.adversarials[0])


def test_batches_and_permutation():
    net, x = cnn(), images(6)
    attacks = fb.DDNAttack(steps=20)
    whole = adversarial_distance(net, x, attacks=attacks).distance
    torch.testing.assert_close(adversarial_distance(net, x, attacks=attacks, internal_batch_size=4).distance, whole)
    order = torch.randperm(6)
    torch.testing.assert_close(adversarial_distance(net, x[order], attacks=attacks).distance, whole[order])


@pytest.mark.filterwarnings("ignore:no adversarial")  # bfloat16 may resolve no other class inside the bounds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    net, x = mlp(dtype=dtype), torch.rand(4, 6, dtype=torch.float64).to(dtype)
    result = adversarial_distance(net, x, bounds=(-4, 5))
    assert result.adversarials.dtype == dtype
    assert result.distance.dtype == torch.promote_types(dtype, torch.float32)
    found = result.distance.isfinite()
    assert found.any()
    assert (net(result.adversarials).argmax(1) != net(x).argmax(1))[found].all()
    size = (result.adversarials.double() - x.double()).norm(dim=1)
    torch.testing.assert_close(size[found], result.distance[found].double(), rtol=1e-5, atol=0)


def test_binary_classifier():
    line = nn.Linear(4, 1, dtype=torch.float64)
    x = 4 * torch.rand(6, 4, dtype=torch.float64) - 2
    result = adversarial_distance(line, x, bounds=WIDE)
    torch.testing.assert_close(
        result.distance, (line(x).abs() / line.weight.norm()).flatten().detach(), rtol=1e-2, atol=0
    )


def test_a_foolbox_model_brings_its_bounds_and_preprocessing():
    net, x = cnn(dtype=torch.float32), images(4, torch.float32)
    model = foolbox.PyTorchModel(
        net, bounds=(-1, 2), device="cpu", preprocessing={"mean": [0.5, 0.4], "std": [0.3, 0.2], "axis": -3}
    )
    mean, std = torch.tensor([0.5, 0.4]).view(2, 1, 1), torch.tensor([0.3, 0.2]).view(2, 1, 1)
    result = adversarial_distance(model, x)
    own = adversarial_distance(lambda x: net((x - mean) / std), x, bounds=(-1, 2))
    torch.testing.assert_close(result.distance, own.distance)
    torch.testing.assert_close(
        linear_analysis(model, x).linearized_robustness,
        linear_analysis(lambda x: net((x - mean) / std), x).linearized_robustness,
    )
    with pytest.raises(ValueError, match=r"bounds: got \(0, 2\), but the Foolbox model has bounds \(-1.0, 2.0\)"):
        adversarial_distance(model, x, bounds=(0, 2))
    assert all(p.grad is None for p in net.parameters())


def test_under_no_grad_and_inference_mode():
    net = cnn()
    with torch.inference_mode():
        x = images(2)
        first = adversarial_distance(net, x)
    with torch.no_grad():
        torch.testing.assert_close(adversarial_distance(net, x.clone()).distance, first.distance)


def test_inputs_that_require_grad_are_left_alone():
    net, x = cnn(), images(2).requires_grad_()
    result = adversarial_distance(net, x)
    assert not result.adversarials.requires_grad
    assert not result.distance.requires_grad
    assert x.grad is None


def test_names_of_attacks():
    net, x = cnn(), images(1)

    def own(model, x, y):
        return x

    result = adversarial_distance(net, x, attacks=[fb.DDNAttack(steps=2), own, fb.DDNAttack(steps=3), own])
    assert result.names == ("DDNAttack", "own", "DDNAttack-2", "own-2")


def test_dataframe_and_text():
    net, x = cnn(), images(3)
    target = net(x).argmax(1)
    target[0] = (target[0] + 1) % 5
    result = adversarial_distance(net, x, target)
    frame = result.to_dataframe()
    assert list(frame) == ["distance", "attack", "reason", *result.names]
    assert frame["attack"].isna().tolist() == [True, False, False]
    assert f"{result.distance.median():.4g}" in str(result)
    assert "3 samples, 95 % intervals; 3 with an adversarial" in str(result)


def test_bad_input_is_named():
    net, x = cnn(), images(2)
    with pytest.raises(
        ValueError, match=r"inputs range -2.* to .*, bounds \(0, 1\): put the normalisation into the model"
    ):
        adversarial_distance(net, (x - 0.5) * 4 - 0.1)
    with pytest.raises(ValueError, match="bounds: got"):
        adversarial_distance(net, x, bounds=(1, 0))
    with pytest.raises(ValueError, match="bounds: got"):
        adversarial_distance(net, x, bounds=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="attacks: got 'slow', expected one of paper, fast"):
        adversarial_distance(net, x, attacks="slow")
    with pytest.raises(ValueError, match="attacks: got none"):
        adversarial_distance(net, x, attacks=[])
    with pytest.raises(TypeError, match="make an instance"):
        adversarial_distance(net, x, attacks=[fb.DDNAttack])
    with pytest.raises(TypeError, match="expected a Foolbox attack"):
        adversarial_distance(net, x, attacks={"ddn": 3})
    with pytest.raises(ValueError, match="NaN"):
        adversarial_distance(net, x * math.nan)
    with pytest.raises(ValueError, match="empty batch"):
        adversarial_distance(net, x[:0])
    with pytest.raises(ValueError, match="target: got class 7"):
        adversarial_distance(net, x, 7)
    with pytest.raises(ValueError, match="training mode"):
        adversarial_distance(cnn().train(), x)


def test_order_of_the_mnist_nets(zoo, mnist):
    x = mnist[0][:32]
    medians = {}
    for name in ("mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry"):
        net = zoo.load(name)
        pgd = fb.LinfPGD(steps=20)
        result = adversarial_distance(net, x, attacks={"deepfool": fb.LinfDeepFoolAttack(), "pgd": pgd}, norm=math.inf)
        check(net, x, result, math.inf)
        medians[name] = float(result.distance.median())
        found = result.distance.isfinite()
        shorter = torch.lerp(x, result.adversarials, 0.999)
        assert (net(shorter).argmax(1) == net(x).argmax(1))[found].all()
    assert medians["mnist_mlp"] < medians["mnist_cnn"] < medians["mnist_kw"] < medians["mnist_madry"]
    assert medians["mnist_mlp"] == pytest.approx(0.064, rel=0.25)
    assert medians["mnist_madry"] == pytest.approx(0.32, rel=0.25)


def test_fast_in_l_1_goes_beyond_planes_on_a_robust_network(zoo, mnist):
    net, x = zoo.load("mnist_madry"), mnist[0][:6]
    fast = adversarial_distance(net, x, attacks="fast", norm=1).distance
    planes = adversarial_distance(net, x, attacks=RivalSearch(norm=1), norm=1).distance
    assert (fast <= 1.01 * planes).all()
    assert float((fast < 0.9 * planes).float().mean()) >= 0.5
