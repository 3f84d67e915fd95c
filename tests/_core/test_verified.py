import math

import pytest
import torch

from captum_alignment import adversarial_distance
from captum_alignment._core._foolbox import ScoresModel
from captum_alignment._core._verified import pushed_outside, rounding, verified
from tests.nets import cnn, images


def model_of(net, x):
    model, scores = ScoresModel(net, (x,), None, (0, 1)), net(x)
    model.rounding = rounding(scores, scores.argmax(1))
    return model, scores.argmax(1)


def line(x):  # the boundary lies at .5
    return torch.stack([1000 + 0 * x[:, 0], 1000.0 + x[:, 0] - 0.5], 1)


def test_a_lead_that_rounding_may_feign_is_none():
    x = torch.zeros(3, 1)
    model, labels = model_of(line, x)
    limit = 64 * torch.finfo(torch.float32).eps * 1000
    found = torch.tensor([[0.5 + 0.5 * limit], [0.5 + 2 * limit], [0.4]])
    _, distance = verified(model, found, labels, 2)
    assert distance.isfinite().tolist() == [False, True, False]
    points, pushed = pushed_outside(model, found, labels, 2)
    assert pushed.isfinite().tolist() == [True, True, False]
    assert (line(points)[:2].argmax(1) == 1).all()
    assert pushed[0] < 0.51


def test_the_size_of_masked_classes_does_not_count_nor_do_halves():
    scores = torch.tensor([[1.0, 2.0, -1e9], [1.0, -math.inf, -math.inf]])
    size = rounding(scores, torch.tensor([0, 0]))
    torch.testing.assert_close(size, 64 * torch.finfo(torch.float32).eps * torch.tensor([2.0, 1.0]))
    assert (rounding(scores.bfloat16(), torch.tensor([0, 0])) == 0).all()


@pytest.mark.parametrize("norm", [2, math.inf])
def test_adversarials_are_misclassified_in_the_batch_alone_and_in_double(norm):
    net, x = cnn(dtype=torch.float32), images(40, torch.float32)
    assert_adversarial(net, x, adversarial_distance(net, x, norm=norm))


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry"])
def test_adversarials_of_real_networks_are(zoo, mnist, name):
    x = mnist[0][:40].float()
    net = zoo.load(name)
    assert_adversarial(net, x, adversarial_distance(net, x))


def assert_adversarial(net, x, result):
    points, labels = result.adversarials, result.target
    with torch.no_grad():
        assert (net(points).argmax(1) != labels).all()
        assert (net(points.flip(0)).argmax(1) != labels.flip(0)).all()
        alone = torch.cat([net(points[i : i + 1]) for i in range(len(points))])
        assert (alone.argmax(1) != labels).all()
        assert (net.double()(points.double()).argmax(1) != labels).all()
        net.float()
        # Without the demand the bisection ends nearer than rounding: what is tested can fail.
        assert (net(torch.lerp(x, points, 0.98)).argmax(1) == labels).all()
