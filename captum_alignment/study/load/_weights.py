"""Weights from files: what is in them, and into which module they fit."""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_alignment.study.load._factories import did_you_mean, reason

#: Under which keys training scripts keep a state_dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_OPTION = "--weights"


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Load the file ``path`` into ``module``, on whatever device that is; every key must fit.

    Prefixes that `torch.nn.DataParallel` (``module.``) and `torch.compile` (``_orig_mod.``) give do not matter, nor
    does the attribute under which a LightningModule or an averaging wrapper keeps the network; what such a wrapper has
    besides is left out, with a warning that names it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds no weights, weights that do not fit, or those of several networks that do; the
            message has the first keys, or what there is to choose from.
    """
    state = _renamed(_network(read_state(path), module.state_dict(), path), module.state_dict())
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        misfit = _misfit(state, module.state_dict()) or reason(error)
        raise ValueError(f"{_OPTION}: {path} does not fit the model: {misfit}") from error


def read_state(path: Path | str) -> dict[str, Any]:
    """The state_dict in the file ``path``, on the CPU wherever it was saved; no code in the file is run.

    A file of safetensors or of `torch.save`, where the state_dict may be wrapped: under ``state_dict``, ``model`` or
    ``model_state_dict``, or first in a list. FILE:KEY picks the state_dict under that key, or what has that prefix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds no weights.
    """
    file, key = split_key(path)
    if not file.is_file():
        beside = [item.name for item in file.parent.iterdir()] if file.parent.is_dir() else []
        raise FileNotFoundError(f"{_OPTION}: no file {path}{did_you_mean(file.name, beside)}")
    with file.open("rb") as opened:
        head = opened.read(9)
    # safetensors begin with the length of their header in eight bytes, then the header, which is JSON.
    content = _read_safetensors(file) if head[8:] == b"{" else _read_pickle(file, head)
    return _checked(_unwrapped(content, path), path) if key is None else _picked(content, key, file)


def split_key(path: Path | str) -> tuple[Path, str | None]:
    """FILE and KEY of FILE:KEY; a file may have a colon in its name."""
    file = Path(path).expanduser()
    name, colon, key = str(file).rpartition(":")
    return (Path(name), key) if colon and not file.is_file() and Path(name).is_file() else (file, None)


def _picked(content: Any, key: str, file: Path) -> dict[str, Any]:
    if isinstance(content, Mapping) and isinstance(content.get(key), (Mapping, list, tuple)):
        return _checked(_unwrapped(content[key], file), f"{file}:{key}")
    if len(names := _states(content)) > 1:
        raise ValueError(f"{_OPTION}: no state_dict {key!r} in {file}, expected one of {', '.join(names)}")
    state = _checked(_unwrapped(content, file), file)
    if not any(name.startswith(f"{key}.") for name in state):
        raise ValueError(f"{_OPTION}: no state_dict {key!r} in {file}, and no key that begins with {key}.")
    return _below(state, f"{key}.")


def _states(content: Any) -> list[str]:
    """The keys under which a file holds state_dicts: what maps names to tensors and to nothing else."""
    if not isinstance(content, Mapping):
        return []
    return [
        str(key)
        for key, value in content.items()
        if isinstance(value, Mapping)
        and not str(key).endswith("_extra_state")
        and value
        and all(isinstance(item, Tensor) or str(name).endswith("_extra_state") for name, item in value.items())
    ]


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError  # noqa: PLC0415 - needed for these files only
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{_OPTION}: {file} is a damaged safetensors file ({reason(error)})") from error


def _read_pickle(file: Path, head: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that it then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        expected = "expected the file of torch.save(model.state_dict(), ...) or safetensors"
        if isinstance(error, pickle.UnpicklingError) and head.startswith((b"PK", b"\x80")):
            named = re.search(r"GLOBAL (\S+)", str(error))
            what = f"needs {named[1]}" if named else "needs more than tensors"
            raise ValueError(f"{_OPTION}: {file} is a pickle that {what} and was not run, {expected}") from error
        if head.startswith(b"PK"):
            raise ValueError(
                f"{_OPTION}: {file} is damaged or no file of weights ({reason(error)}), {expected}"
            ) from error
        raise ValueError(f"{_OPTION}: {file} is no file of weights, {expected}") from error


def _unwrapped(content: Any, path: Path | str) -> Any:
    for _ in range(8):  # a file may hold a list that holds itself
        if isinstance(content, (list, tuple)) and content:
            content = content[0]
        elif isinstance(content, Mapping):
            if len(names := _states(content)) > 1:
                raise ValueError(
                    f"{_OPTION}: {path} holds several state_dicts, {', '.join(names)}; name one: {path}:{names[0]}"
                )
            # A parameter may have a wrapper's name.
            inner = (content[key] for key in _WRAPPERS if isinstance(content.get(key), (Mapping, list, tuple)))
            content = next(inner, content)
    return content


def _checked(content: Any, path: Path | str) -> dict[str, Any]:
    expected = f"expected a state_dict, alone or under {', '.join(map(repr, _WRAPPERS))}"
    if not isinstance(content, Mapping):
        raise ValueError(f"{_OPTION}: {path} holds an object of type {type(content).__name__}, {expected}")
    if not content:
        raise ValueError(f"{_OPTION}: {path} holds nothing, {expected}")
    for key, value in content.items():
        # A module may have a state of its own, which need not be a tensor.
        if not isinstance(value, Tensor) and not str(key).endswith("_extra_state"):
            raise ValueError(f"{_OPTION}: {path} holds {key!r} of type {type(value).__name__}, {expected}")
    state = OrderedDict((str(key), value) for key, value in content.items())
    if isinstance(metadata := getattr(content, "_metadata", None), Mapping):
        state._metadata = metadata  # pyright: ignore[reportAttributeAccessIssue] - torch keeps versions of modules there
    return state


def _network(state: dict[str, Any], expected: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """The part of ``state`` below the one prefix where exactly the expected keys lie; without such a one, all of it."""
    first = next(iter(expected), "")
    if expected.keys() <= state.keys():
        return state
    shapes = {key: _shape(value) for key, value in expected.items()}
    prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
    parts = {prefix: _below(state, prefix) for prefix in prefixes}
    fits = [prefix for prefix, part in parts.items() if {key: _shape(v) for key, v in part.items()} == shapes]
    if len(fits) > 1:
        names = [prefix.removesuffix(".") for prefix in fits]
        raise ValueError(
            f"{_OPTION}: {path} holds {len(fits)} networks that fit, {', '.join(names)}; name one: {path}:{names[0]}"
        )
    if not fits:
        return state
    if others := [key for key in state if not key.startswith(fits[0])]:
        warnings.warn(
            f"{_OPTION}: {path}: taken is what begins with {fits[0]!r}, left out is {_first(others)}",
            UserWarning,
            stacklevel=2,
        )
    return parts[fits[0]]


def _below(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What lies under ``prefix``, which ends in a dot, and the versions of its modules."""
    part = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items() if key.startswith(prefix))
    if hasattr(state, "_metadata"):
        versions = {f"{key}.": value for key, value in state._metadata.items()}  # pyright: ignore[reportAttributeAccessIssue]
        part._metadata = {  # pyright: ignore[reportAttributeAccessIssue]
            key.removeprefix(prefix).removesuffix("."): value
            for key, value in versions.items()
            if key.startswith(prefix)
        }
    return part


def _renamed(state: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` under the names of ``expected`` where only the prefixes of wrappers differ."""
    names = {_bare(key): key for key in expected}
    renamed = OrderedDict((key if key in expected else names.get(_bare(key), key), v) for key, v in state.items())
    if len(renamed) != len(state):
        return state  # no two keys may become one
    if hasattr(state, "_metadata"):
        metadata = {_bare(f"{key}.").removesuffix("."): value for key, value in state._metadata.items()}  # pyright: ignore[reportAttributeAccessIssue]
        renamed._metadata = metadata  # pyright: ignore[reportAttributeAccessIssue]
    return renamed


def _bare(key: str) -> str:
    key = key.replace("_orig_mod.", "")
    return key.removeprefix("module.")


def _misfit(state: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    reshaped = [key for key in state if key in expected and _shape(state[key]) != _shape(expected[key])]
    parts = []
    if missing:
        parts.append(f"{_first(missing)} missing, {_shape(expected[missing[0]])}")
    if unexpected:
        parts.append(f"{_first(unexpected)} unexpected, {_shape(state[unexpected[0]])}")
    if reshaped:
        there, here = (_shape(which[reshaped[0]]) for which in (state, expected))
        parts.append(f"{_first(reshaped)} of another shape, {there} in the file and {here} in the model")
    return "; ".join(parts)


def _first(keys: Sequence[str]) -> str:
    others = len(keys) - 1
    return repr(keys[0]) + (f" and {others} other key{'s' if others > 1 else ''}" if others else "")


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
