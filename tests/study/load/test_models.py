import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from captum_alignment.study import LoadedModel, load_dataset, load_model
from captum_alignment.study.load import Samples
from tests import real

# Small and quick to make: 1.2 million parameters.
SMALL = "torchvision:squeezenet1_1"

OWN = """
import torch
from torch import nn

ready = nn.Linear(3, 2)
number = 1

def make(width=2):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Dropout())

def fails():
    raise KeyError("kw")

def text():
    return "a model"
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


@pytest.mark.parametrize("name", real.ZOO)
def test_the_zoo_by_name(name, shared, zoo):
    loaded = load_model(f'{shared}/models/zoo.py:load("{name}")')
    x = real.images(shared, name, 2).float()
    torch.testing.assert_close(loaded.module(x), zoo.load(name)(x))
    assert loaded == LoadedModel(loaded.module, f'zoo.py:load("{name}")')
    assert not any(module.training for module in loaded.module.modules())


def test_a_file_of_the_zoo_and_its_normalisation(shared, zoo):
    spec = f"{shared}/models/zoo.py:_ResNet20"
    file = shared / "models" / "resnet20-12fca82f.th"  # {'state_dict': ...} of a DataParallel module
    loaded = load_model(spec, weights=file, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    x = real.images(shared, "cifar_resnet20", 4).float()
    torch.testing.assert_close(loaded.module(x), zoo.load("cifar_resnet20")(x))


def test_factories(own):
    loaded = load_model(f"{own}:make(width=5)", mean=[0.5], std=[0.25])
    assert (loaded.name, loaded.mean, loaded.std, loaded.crop) == ("own.py:make(width=5)", (0.5,), (0.25,), None)
    assert isinstance(loaded.module, nn.Sequential)
    normalize, inner = loaded.module.children()
    assert isinstance(inner, nn.Sequential)
    x = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(normalize(x), (x - 0.5) / 0.25)
    torch.testing.assert_close(loaded.module(x), inner((x - 0.5) / 0.25))
    assert not inner[2].training
    assert isinstance(load_model(f"{own}:ready").module, nn.Linear)
    assert load_model("torch.nn:Linear(3, 4)").module.out_features == 4


def test_the_key_of_the_weights_is_part_of_the_name(own, tmp_path):
    states = {key: load_model(f"{own}:make(width={width})").module.state_dict() for key, width in (("a", 2), ("b", 3))}
    torch.save(states, tmp_path / "both.pt")
    assert load_model(f"{own}:make", weights=f"{tmp_path}/both.pt:a").name == "own.py:make (a)"


def test_untrained_parameters_are_the_same_every_time_and_disturb_nobody(own):
    state = torch.get_rng_state()
    first, second = (load_model(f"{own}:make").module(torch.ones(1, 3, 2, 2)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_the_device():
    loaded = load_model("torch.nn:Linear(3, 4)", device="meta", mean=[0], std=[1])
    assert {value.device.type for value in loaded.module.state_dict().values()} == {"meta"}


def test_torchvision_with_a_file(tmp_path):
    saved = load_model(SMALL, num_classes=7)
    assert saved.name == f"{SMALL} (untrained)"
    torch.save(saved.module.state_dict(), tmp_path / "w.pt")
    loaded = load_model(SMALL, weights=str(tmp_path / "w.pt"), num_classes=7)
    assert loaded == LoadedModel(loaded.module, SMALL)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.module(x), saved.module(x))
    with pytest.raises(
        ValueError, match=r"does not fit .*'classifier\.1\.weight' .* of another shape, \(7, 512, 1, 1\)"
    ):
        load_model(SMALL, weights=tmp_path / "w.pt")


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """torch.hub's cache with parameters for squeezenet1_1, so that nothing is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    net = models.squeezenet1_1()
    url = models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save(net.state_dict(), folder / url.rpartition("/")[2])
    return net.eval()


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_torchvisions_weights_bring_their_transform(weights, pretrained):
    loaded = load_model(SMALL, weights=weights)
    assert (loaded.name, loaded.resize, loaded.crop) == (SMALL, 256, 224)
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = torch.randint(256, (3, 224, 224), dtype=torch.uint8)
    transform = models.SqueezeNet1_1_Weights.DEFAULT.transforms(resize_size=224)
    torch.testing.assert_close(loaded.module(image[None] / 255), pretrained(transform(image)[None]))


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_b0", "efficientnet_v2_l", "swin_t", "vit_b_16"])
def test_a_file_reaches_the_network_as_torchvisions_weights_transform_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "get_model", lambda *args, **kwargs: nn.Identity())
    official = models.get_model_weights(name)["DEFAULT"].transforms()
    noise = torch.randint(256, (300, 320, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.numpy()).resize((640, 600))
    image.save(tmp_path / "a.png")
    loaded = load_model(f"torchvision:{name}", weights="DEFAULT")
    data = load_dataset(f"imagefolder:{tmp_path}", resize=loaded.resize, crop=loaded.crop)
    pixels = Samples(data)[0].image
    assert pixels is not None
    torch.testing.assert_close(loaded.module(pixels[None])[0], official(image), atol=1e-5, rtol=0)


def test_the_users_normalisation_wins(pretrained):
    loaded = load_model(SMALL, weights="DEFAULT", mean=(0.5, 0.5, 0.5))
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.229, 0.224, 0.225))


def test_classes_that_the_weights_do_not_have(pretrained):
    with pytest.raises(ValueError, match=r"--weights: the pretrained weights of .* do not load .*num_classes.* 1000"):
        load_model(SMALL, weights="DEFAULT", num_classes=10)


def test_no_network(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(
        ConnectionError, match=r"--weights: .* could not be downloaded .*unreachable.*, expected a network"
    ):
        load_model(SMALL, weights="DEFAULT")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (
            "resnet50",
            ValueError,
            "--model: got 'resnet50', expected torchvision:NAME.*did you mean torchvision:resnet50",
        ),
        ("zoo.py", ValueError, "--model: got 'zoo.py', expected .*path/file.py:factory or package.module:factory$"),
        ("torchvision:resnet5O", ValueError, "no image classifier 'resnet5O'; did you mean resnet50 or "),
        ("torchvision:xyz", ValueError, "no image classifier 'xyz'; expected a name such as resnet50"),
        ("torchvision:raft_small", ValueError, "no image classifier 'raft_small'"),
        ("absent.py:make", FileNotFoundError, r"--model: no file absent\.py"),
        ("no_such_thing:make", ModuleNotFoundError, "--model: no module 'no_such_thing'"),
        ("{own}:mak", ValueError, r"--model: .*own\.py has no 'mak'; did you mean make\?"),
        ("{own}:fails", ValueError, r"--model: fails\(\) of .* raised KeyError: 'kw'"),
        ("{own}:text", TypeError, r"text\(\) of .* returned an object of type str, expected a torch\.nn\.Module"),
        ("{own}:number", TypeError, "'number' of .* is of type int, expected a function"),
    ],
)
def test_models_that_are_not(spec, kind, message, own):
    with pytest.raises(kind, match=message) as caught:
        load_model(spec.format(own=own))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"weights": "IMAGENET1K_V9"},
            ValueError,
            "--weights: got 'IMAGENET1K_V9', expected a file or, for squeezenet1_1",
        ),
        ({"mean": (0.5,) * 3}, ValueError, "--std: missing, expected --mean and --std together"),
        ({"std": (0.5,) * 3}, ValueError, "--mean: missing, expected --mean and --std together"),
        ({"mean": (0.5,) * 3, "std": (0.5,)}, ValueError, "--mean: got 3 values and 1 of --std, expected one each"),
        ({"mean": (), "std": ()}, ValueError, "--mean: got 0 values and 0 of --std"),
        ({"mean": (0.5, 0.5), "std": (0.1, 0)}, ValueError, "--std: got 0.1 0, expected numbers > 0"),
        ({"mean": (float("nan"),), "std": (1,)}, ValueError, "--mean: got nan, expected finite numbers"),
        ({"mean": 0.5, "std": 0.5}, TypeError, "--mean: got 0.5, expected one number per channel"),
        ({"num_classes": -1}, ValueError, "--model: torchvision:squeezenet1_1 raised RuntimeError"),
    ],
)
def test_options_that_are_wrong(options, kind, message):
    with pytest.raises(kind, match=message):
        load_model(SMALL, **options)


def test_options_that_a_factory_does_not_have(own):
    with pytest.raises(ValueError, match=r"--num-classes: got 3 for a factory, .* own\.py:make\(num_classes=3\)"):
        load_model(f"{own}:make", num_classes=3)
    with pytest.raises(FileNotFoundError, match="--weights: no file DEFAULT"):
        load_model(f"{own}:make", weights="DEFAULT")


def fake_timm(monkeypatch, create, **given):
    config = {"input_size": (3, 240, 240), "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 0.95}
    config |= {"interpolation": "bicubic", "crop_mode": "center", **given}
    timm = SimpleNamespace(
        is_model=lambda name: name.partition(".")[0] == "tiny_net",
        list_models=lambda: ["tiny_net", "huge"],
        create_model=create,
        data=SimpleNamespace(resolve_model_data_config=lambda module: config),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)


def test_timm(monkeypatch, tmp_path):
    made = []

    def create(name, pretrained, **options):
        made.append((name, pretrained, options))
        return nn.Linear(3, 2)

    fake_timm(monkeypatch, create)
    loaded = load_model("timm:tiny_net.a1_in1k", weights="DEFAULT")
    assert (loaded.name, loaded.mean, loaded.std) == ("timm:tiny_net.a1_in1k", (0.5,) * 3, (0.25,) * 3)
    assert (loaded.resize, loaded.crop) == (252, 240)
    assert loaded.resize is not None
    assert (loaded.resize.interpolation, loaded.resize.squash) == ("bicubic", False)
    assert load_model("timm:tiny_net", num_classes=2).name == "timm:tiny_net (untrained)"
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "w.pt")
    assert load_model("timm:tiny_net", weights=tmp_path / "w.pt").mean is None
    assert made == [
        ("tiny_net.a1_in1k", True, {}),
        ("tiny_net", False, {"num_classes": 2}),
        ("tiny_net", False, {}),
    ]
    with pytest.raises(ValueError, match=r"--model: timm has no model 'tiny_ned'; did you mean tiny_net\?"):
        load_model("timm:tiny_ned")


@pytest.mark.parametrize("given", [{"crop_mode": "border"}, {"input_size": (3, 240, 320)}])
def test_a_transform_of_timms_that_is_not_made_here_is_named(given, monkeypatch):
    fake_timm(monkeypatch, lambda *args, **kwargs: nn.Linear(3, 2), **given)
    with pytest.warns(UserWarning, match=r"--weights: timm:tiny_net was evaluated on images of 240 x .* give --resize"):
        loaded = load_model("timm:tiny_net", weights="DEFAULT")
    assert (loaded.resize, loaded.crop, loaded.mean) == (None, None, (0.5,) * 3)


def test_timm_without_network(monkeypatch):
    def create(name, pretrained):
        raise FileNotFoundError("not in the local cache")

    fake_timm(monkeypatch, create)
    with pytest.raises(
        ConnectionError, match="--weights: the pretrained weights of timm:tiny_net could not be downloaded"
    ):
        load_model("timm:tiny_net", weights="DEFAULT")


def test_timm_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="--model: timm is not installed: pip install timm") as caught:
        load_model("timm:resnet18")
    assert caught.value.name is None  # it is not among what the extra brings


def test_the_real_timm():
    pytest.importorskip("timm")
    loaded = load_model("timm:resnet10t", num_classes=4)
    assert loaded.module(torch.rand(1, 3, 64, 64)).shape == (1, 4)
    with pytest.raises(ValueError, match=r"--model: timm has no model 'resnet10x'; did you mean .*resnet10t"):
        load_model("timm:resnet10x")
