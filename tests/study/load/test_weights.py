import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from captum_alignment.study.load._weights import load_weights, read_state


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


WRAPPED = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {}},
    "list": lambda state: [state, {}],
    "list in state_dict": lambda state: {"state_dict": [state]},
    "DataParallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled DataParallel": lambda state: prefixed(state, "module._orig_mod."),
    "a layer compiled": lambda state: {key.replace(".", "._orig_mod.", 1): value for key, value in state.items()},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_every_wrapping(wrap, zipped, tmp_path):
    saved, loaded, file = net(), net(), tmp_path / "w.pt"
    torch.save(wrap(saved.state_dict()), file, _use_new_zipfile_serialization=zipped)
    load_weights(loaded, file)
    assert equal(saved.state_dict(), loaded.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_safetensors_whatever_the_file_is_called(prefix, tmp_path):
    from safetensors.torch import save_file

    saved, loaded = net(), net()
    for file in (tmp_path / "w.safetensors", tmp_path / "w.bin"):
        save_file(prefixed(saved.state_dict(), prefix), file)
        load_weights(loaded, str(file))
        assert equal(saved.state_dict(), loaded.state_dict())


def test_names_that_only_look_like_wrappers(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.model = nn.Parameter(torch.randn(2))

    saved, loaded = Odd(), Odd()
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    load_weights(loaded, tmp_path / "w.pt")
    assert equal(saved.state_dict(), loaded.state_dict())


def test_a_model_compiled_by_its_factory(tmp_path):
    saved, loaded = net(), net()
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    load_weights(nn.ModuleDict({"_orig_mod": loaded}), tmp_path / "w.pt")
    assert equal(saved.state_dict(), loaded.state_dict())


def test_weights_saved_on_a_device_that_is_not_here(tmp_path, monkeypatch):
    # torch.save writes the device of every storage into the file; this is what a file from a machine with a GPU has.
    saved, loaded = net(), net()
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
        torch.save(saved.state_dict(), tmp_path / "w.pt")
    with pytest.raises((RuntimeError, AssertionError)):
        torch.load(tmp_path / "w.pt", weights_only=True)
    load_weights(loaded, tmp_path / "w.pt")
    assert equal(saved.state_dict(), loaded.state_dict())


def test_a_module_on_another_device(tmp_path):
    # No accelerator is at hand; that nothing is left on the CPU is all that meta tensors can show.
    torch.save(net().state_dict(), tmp_path / "w.pt")
    loaded = net().to("meta")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # they have no memory to copy into
        load_weights(loaded, tmp_path / "w.pt")
    assert {value.device.type for value in loaded.state_dict().values()} == {"meta"}


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_not_run(zipped, tmp_path):
    file = tmp_path / "w.pt"
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"--weights: .*w\.pt is a pickle that needs \S*mkdir and was not run"
    ) as caught:
        read_state(file)
    assert caught.value.__cause__ is not None
    file.write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"is a pickle that needs .* and was not run, expected"):
        read_state(file)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_no_state_dict(tmp_path):
    torch.save(net(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"needs torch\.nn\S* and was not run, expected .*model\.state_dict\(\)"):
        read_state(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of weights, expected the file of torch.save"),
        (b"once upon a time", "is no file of weights, expected the file of torch.save"),
        (b"PK\x03\x04 and so on", "is damaged or no file of weights .RuntimeError: "),
        (b"\x10\0\0\0\0\0\0\0{truncated", "is a damaged safetensors file .SafetensorError: "),
    ],
)
def test_files_that_are_neither(content, message, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ValueError, match=f"^--weights: .*w.pt {message}") as caught:
        read_state(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_truncated_file(tmp_path):
    torch.save(net().state_dict(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"^--weights: .*w\.pt is damaged"):
        read_state(tmp_path / "w.pt")


def test_torchscript_is_refused_in_a_sentence(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its deprecation
        torch.jit.script(net().eval()).save(str(tmp_path / "w.pt"))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"w\.pt is damaged or no file of weights .*TorchScript"):
        read_state(tmp_path / "w.pt")


def looped():
    content = []
    content.append(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": {"a": torch.ones(1)}, "epoch": 3}, "holds 'net' of type dict, expected a state_dict, alone or under"),
        (torch.ones(1), "holds an object of type Tensor"),
        ({}, "holds nothing"),
        ([], "holds an object of type list"),
        (looped(), "holds an object of type list"),
        ({"state_dict": {"a": 1.0}}, "holds 'a' of type float"),
    ],
)
def test_contents_that_are_no_weights(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=rf"^--weights: .*w\.pt {message}"):
        read_state(tmp_path / "w.pt")


def test_no_such_file(tmp_path):
    (tmp_path / "best.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"--weights: no file .*besd\.pt; did you mean best\.pt\?"):
        read_state(tmp_path / "besd.pt")
    with pytest.raises(FileNotFoundError, match="--weights: no file"):
        read_state(tmp_path)
    with pytest.raises(FileNotFoundError, match="--weights: no file"):
        read_state(Path("nowhere") / "w.pt")


def test_misfits_name_their_first_keys_with_shapes(tmp_path):
    torch.save(net().state_dict(), tmp_path / "w.pt")
    other = nn.Sequential(nn.Linear(3, 5), nn.Identity(), nn.Linear(5, 6))
    with pytest.raises(ValueError, match=r"--weights: .*w\.pt does not fit the model: ") as caught:
        load_weights(other, tmp_path / "w.pt")
    assert str(caught.value).split("model: ")[1] == (
        "'2.weight' and 1 other key missing, (6, 5); '1.weight' and 4 other keys unexpected, (4,); "
        "'0.weight' and 1 other key of another shape, (4, 3) in the file and (5, 3) in the model"
    )
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_two_keys_do_not_become_one(tmp_path):
    state = nn.Linear(2, 2).state_dict()
    torch.save({**state, **prefixed(state, "module.")}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"'module\.weight' and 1 other key unexpected, \(2, 2\)"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pt")


def test_state_that_is_no_tensor(tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"count": 3}

        def set_extra_state(self, state):
            self.count = state["count"]

    loaded = Counting(2, 2)
    torch.save(Counting(2, 2).state_dict(), tmp_path / "w.pt")
    load_weights(loaded, tmp_path / "w.pt")
    assert loaded.count == 3


def test_the_versions_of_modules_are_kept(tmp_path):
    from torchvision.models import mnasnet0_5

    state = mnasnet0_5(weights=None).state_dict()
    torch.save(state, tmp_path / "m.pt")
    module = mnasnet0_5(weights=None)
    load_weights(module, tmp_path / "m.pt")
    assert equal(module.state_dict(), state)


def test_one_of_several_state_dicts(tmp_path):
    raw, averaged = net().state_dict(), net().state_dict()
    path = tmp_path / "both.pt"
    torch.save({"state_dict": raw, "state_dict_ema": averaged, "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"several state_dicts, state_dict, state_dict_ema; name one: .*:state_dict"):
        read_state(path)
    assert equal(read_state(f"{path}:state_dict_ema"), averaged)
    assert equal(read_state(f"{path}:state_dict"), raw)
    with pytest.raises(ValueError, match=r"no state_dict 'ema' in .*expected one of state_dict, state_dict_ema"):
        read_state(f"{path}:ema")


def test_keys_that_share_one_prefix(tmp_path):
    state = net().state_dict()
    torch.save({"state_dict": {f"net.{key}": value for key, value in state.items()}, "epoch": 1}, tmp_path / "l.ckpt")
    module = net()
    load_weights(module, tmp_path / "l.ckpt")
    assert equal(module.state_dict(), state)


@pytest.fixture(params=["net.", "model.net."])
def lightning(request, tmp_path):
    """A Lightning checkpoint: the network under an attribute, beside what the module has besides."""
    state = net().state_dict()
    besides = {"criterion.weight": torch.ones(4), "calls": torch.tensor(3)}
    parameters = {"rate": 0.1, "weights": torch.ones(4)}
    content = {"state_dict": {**prefixed(state, request.param), **besides}, "hyper_parameters": parameters}
    torch.save(content, tmp_path / "l.ckpt")
    return tmp_path / "l.ckpt", state


def test_what_a_lightning_module_has_besides_is_left_out_and_named(lightning):
    file, state = lightning
    module = net()
    with pytest.warns(
        UserWarning, match=r"taken is what begins with .*net\.', left out is 'criterion\.weight' and 1 oth"
    ):
        load_weights(module, file)
    assert equal(module.state_dict(), state)


def test_the_weights_of_torchs_averaged_model(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(net())
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    module = net()
    with pytest.warns(UserWarning, match="begins with 'module.', left out is 'n_averaged'"):
        load_weights(module, tmp_path / "swa.pt")
    assert equal(module.state_dict(), averaged.module.state_dict())


def test_two_networks_in_one_state_dict(tmp_path):
    student, teacher, file = net().state_dict(), net().state_dict(), tmp_path / "w.ckpt"
    torch.save({"state_dict": {**prefixed(student, "student."), **prefixed(teacher, "ema.module.")}, "epoch": 1}, file)
    with pytest.raises(ValueError, match=r"holds 2 networks that fit, student, ema\.module; name one: .*:student$"):
        load_weights(net(), file)
    for name, state in {"student": student, "ema.module": teacher, "ema": teacher}.items():
        module = net()
        load_weights(module, f"{file}:{name}")
        assert equal(module.state_dict(), state)
    with pytest.raises(ValueError, match=r"no state_dict 'emma' in .*, and no key that begins with emma\."):
        load_weights(net(), f"{file}:emma")


def test_the_versions_of_modules_below_a_prefix_are_kept(tmp_path):
    from torchvision.models import mnasnet0_5

    wrapped = nn.ModuleDict({"net": mnasnet0_5(weights=None), "other": nn.Linear(1, 1)})
    torch.save(wrapped.state_dict(), tmp_path / "m.pt")
    module = mnasnet0_5(weights=None)
    with pytest.warns(UserWarning, match="left out is 'other.weight' and 1 other key"):
        load_weights(module, tmp_path / "m.pt")
    assert equal(module.state_dict(), wrapped["net"].state_dict())


def test_numpys_numbers_in_a_checkpoint_are_refused_by_name(tmp_path):
    torch.save({"state_dict": net().state_dict(), "best": np.float64(0.9)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"is a pickle that needs numpy\S* and was not run"):
        read_state(tmp_path / "w.pt")
