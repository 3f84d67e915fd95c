"""The explainer against the same step written by hand, with the features taken by running half of the network."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import Explainer, ExplainerTraining, RegularizationCallback, explainer_loss
from tests.nets import assert_unchanged, snapshot


def student():
    features = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(features, nn.Flatten(), nn.Dropout(0.0), nn.Linear(96, 4)).double()


def decoder():
    return Explainer(6, 2, filters=(8, 5)).double()


def batch(n=5):
    x = torch.rand(n, 2, 8, 8, dtype=torch.float64)
    return x, torch.arange(n) % 4, torch.randn(n, 2, 8, 8, dtype=torch.float64)


def literal_loss(net, explainer, x, maps):
    found = F.interpolate(explainer(net[0](x)), (8, 8), mode="bilinear", align_corners=False)
    return torch.stack([(a - b).reshape(-1).square().sum().sqrt() for a, b in zip(found, maps, strict=True)]).mean()


def gradients(*modules):
    return [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("strides", [2, (2, 1, 3)])
def test_the_explainer_is_the_papers_decoder(strides):
    explainer = Explainer(7, 3, filters=(6, 5, 4), strides=strides)
    kinds = [type(module) for module in explainer.modules() if not isinstance(module, nn.Sequential)]
    assert kinds == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3 + [nn.Conv2d]
    factor = 8 if strides == 2 else 6
    maps = explainer(torch.randn(2, 7, 4, 3))
    assert maps.shape == (2, 3, 4 * factor, 3 * factor)
    assert maps.min() < 0 < maps.max()
    default = [m.out_channels for m in Explainer(512).modules() if isinstance(m, nn.ConvTranspose2d)]
    assert default == [512, 256, 128, 64]


def test_explainer_options_are_checked():
    for name, wrong in {"in_channels": 0, "out_channels": 1.5, "filters": (4, 0), "strides": (1, -1)}.items():
        options = {"in_channels": 3, "filters": (4, 2), name: wrong}
        with pytest.raises(ValueError, match=f"{name}: got"):
            Explainer(**options)
    with pytest.raises(ValueError, match="strides: got 3, expected one for each of 2 filters"):
        Explainer(3, filters=(4, 2), strides=(2, 2, 2))


def test_loss_is_the_norm_of_the_difference():
    a, b = torch.randn(4, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 5, 5, requires_grad=True)
    found = explainer_loss(a, b)
    torch.testing.assert_close(found, (a - b).flatten(1).norm(dim=1))
    found.sum().backward()
    assert b.grad is None
    torch.testing.assert_close(explainer_loss((a, a), (b, b)), found * 2**0.5)
    same = a.detach().requires_grad_()
    explainer_loss(same, same.detach()).sum().backward()
    assert same.grad is not None
    assert not same.grad.any()
    assert explainer_loss(a.bfloat16(), b).dtype == torch.float32
    with pytest.raises(ValueError, match=r"targets: got shapes \[\(4, 1, 5, 5\)\], expected those of the maps"):
        explainer_loss(a, b[:, :1])


@pytest.mark.parametrize("shared", [False, True])
def test_term_and_gradients_are_the_literal_ones(shared):
    (x, y, maps), net, explainer = batch(), student(), decoder()
    (F.cross_entropy(net(x), y) + 0.7 * literal_loss(net, explainer, x, maps)).backward()
    expected = gradients(net, explainer)
    assert len(expected) == len([*net.parameters(), *explainer.parameters()])
    net.zero_grad()
    explainer.zero_grad()
    regularizer = ExplainerTraining(explainer, "0", 0.7)
    if shared:
        scores, term = regularizer.scores_and_term(net, x, maps)
    else:
        scores, term = net(x), regularizer(net, x, y, maps)
    (F.cross_entropy(scores, y) + term).backward()
    torch.testing.assert_close(gradients(net, explainer), expected)


def test_scores_and_term_take_one_forward_pass():
    (x, _, maps), net, calls = batch(), student(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    ExplainerTraining(decoder(), "0").scores_and_term(net, x, maps)
    assert len(calls) == 1


def test_statistics_are_those_of_one_pass_and_nothing_else_changes():
    (x, y, maps), net, explainer = batch(), student(), decoder()
    by_hand = decoder()
    by_hand.load_state_dict(explainer.state_dict())
    by_hand(net[0](x))
    before = snapshot(net)
    ExplainerTraining(explainer, "0")(net, x, y, maps)
    assert_unchanged(net, before)
    torch.testing.assert_close(explainer.state_dict(), by_hand.state_dict())
    assert explainer.state_dict()["0.1.num_batches_tracked"] == 1


class Module(LightningModule):
    """The explainer is a submodule, so that the optimizer and the checkpoint have it."""

    def __init__(self):
        super().__init__()
        self.net, self.explainer = student(), decoder()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_in_lightning_the_callback_is_the_loop_by_hand():
    batches, module, by_hand = [batch() for _ in range(4)], Module(), Module()
    by_hand.load_state_dict(module.state_dict())
    regularizer = ExplainerTraining(module.explainer, "net.0")
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=1, callbacks=[RegularizationCallback(regularizer)], enable_model_summary=False, **options
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # pyright: ignore[reportArgumentType]
    assert float(trainer.callback_metrics["explainer"]) > 0

    optimizer = by_hand.configure_optimizers()
    for x, y, maps in batches:
        features = by_hand.net[0](x)
        found = F.interpolate(by_hand.explainer(features), (8, 8), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(by_hand.net[1:](features), y)
        optimizer.zero_grad()
        (loss + 0.35 * (found - maps).flatten(1).norm(dim=1).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(module.state_dict(), by_hand.state_dict())


def test_the_hook_is_removed_also_after_an_error():
    (x, y, maps), net = batch(), student()
    before = snapshot(net)
    with pytest.raises(RuntimeError):
        ExplainerTraining(nn.Conv2d(99, 2, 1).double(), "0")(net, x, y, maps)
    with pytest.raises(RuntimeError):
        ExplainerTraining(decoder(), "0").scores_and_term(net, x[:, :1], maps[:, :1])
    assert_unchanged(net, before)


def test_the_value_alone_without_grad():
    (x, y, maps), net, explainer = batch(), student().eval(), decoder().eval()
    with torch.no_grad():
        term = ExplainerTraining(explainer, "0", 1.0)(net, x, y, maps)
        torch.testing.assert_close(term, literal_loss(net, explainer, x, maps))
    assert not term.requires_grad


def test_wrong_arguments_are_named():
    (x, y, maps), net = batch(), student()
    training = ExplainerTraining(decoder(), "0")
    with pytest.raises(TypeError, match="maps: got nothing"):
        training(net, x, y)
    with pytest.raises(ValueError, match="maps: got shapes"):
        training(net, x, y, maps[:, :1])
    with pytest.raises(ValueError, match="inputs: got shapes"):
        training.scores_and_term(net, x.flatten(1), maps)
    with pytest.raises(TypeError, match="model: got function"):
        training(lambda x: net(x), x, y, maps)
    with pytest.raises(TypeError, match="explainer: got function"):
        ExplainerTraining(lambda h: h, "0")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="weight: got -1"):
        ExplainerTraining(decoder(), "0", -1)
    with pytest.raises(ValueError, match=r"layer: '1' puts out shape \(5, 96\)"):
        ExplainerTraining(decoder(), "1")(net, x, y, maps)
    with pytest.raises(ValueError, match=r"layer: got 'layer4', expected one of 0, 0\.0, 0\.1, 0\.2, 1"):
        ExplainerTraining(decoder(), "layer4")(net, x, y, maps)
    with pytest.raises(ValueError, match=r"explainer: returned \(5, 3, 16, 16\) for images \(5, 2, 8, 8\)"):
        ExplainerTraining(Explainer(6, 3, filters=(4, 4)).double(), "0")(net, x, y, maps)
