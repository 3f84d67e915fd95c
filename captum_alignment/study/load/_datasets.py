"""Data sets by name: bundled, torchvision's, folders and arrays of images, or what a user's own file makes."""

import os
import warnings
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from captum_alignment.study.load._factories import call_factory, did_you_mean, parse_factory, reason
from captum_alignment.study.load._fitted import Fitted
from captum_alignment.study.load._forms import FORMS, SOURCES
from captum_alignment.study.load._given import as_dataset
from captum_alignment.study.load._hugging_face import open_hugging_face
from captum_alignment.study.load._sources import Arrays, Files, channels_first
from captum_alignment.study.load._splits import class_names, digits, open_torchvision

_SPLITS = ("test", "train")
#: Images that torchvision's list leaves out.
_MORE_ENDINGS = (".gif", ".jfif")
#: So many skipped files are named.
_NAMED = 5


def load_dataset(
    spec: str,
    *,
    root: Path | str | None = None,
    split: str = "test",
    resize: int | None = None,
    crop: int | None = None,
    interpolation: str | None = None,
    download: bool = False,
) -> Any:
    """The map-style data set that ``spec`` names: ``[i]`` is (image, label), or the image where there are no labels.

    Images are PIL images, uint8 or floating tensors (C, H, W). ``ids`` are the relative paths of files, what an npz
    says, or the index in the source; ``classes`` names the labels where the source does. A file is opened when its
    sample is asked for, so that a damaged one concerns nobody else.

    Args:
        spec: ``digits`` (500 held out of 1797); ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``imagenet``
            as torchvision lays them out; ``imagefolder:PATH``: one folder per class, labels number their sorted names,
            or images that lie directly in PATH, which have no labels (hidden folders and what is no image
            are left out, with a warning); ``npz:FILE``, as `open_npz` says; ``hf:NAME`` or ``hf:NAME:CONFIGURATION``,
            Hugging Face's, from the local cache, a folder, or fetched, with ``image`` (or ``img``) and ``label``;
            ``path/file.py:factory`` or ``package.module:factory``, a data set, loader or pair of arrays, or what makes
            one, also called with literal arguments.
        root: where torchvision's data sets lie.
        split: "test" or "train", where the source has both; for Hugging Face any that it has.
        resize, crop: shorter side and centre crop in pixels; None leaves the images as they are. Those of a
            `LoadedModel` bring its weights' own interpolation with them.
        interpolation: "nearest", "bilinear" or "bicubic"; None is that of ``resize``, or bilinear.
        download: let torchvision fetch what is not under ``root``.

    Raises:
        ValueError, TypeError: a specification, folder or file that does not exist or holds no images, or a factory that
            raised; the message has the option as the command line calls it, what came and what was expected.
        FileNotFoundError: no such file or folder.
        ModuleNotFoundError: no such module, or scikit-learn is not installed.
        ConnectionError: data that could not be downloaded.
    """
    if split not in _SPLITS and not spec.strip().lower().startswith("hf:"):
        raise ValueError(f"--split: got {split!r}, expected test or train")
    dataset, has_splits = _open(spec, None if root is None else Path(root).expanduser(), split, download)
    if split != "test" and not has_splits:
        raise ValueError(f"--split: got {split!r} for {spec}, which is one whole; name the training samples by --data")
    return dataset if resize is None and crop is None else Fitted(dataset, resize, crop, interpolation)


def _open(spec: str, root: Path | None, split: str, download: bool) -> tuple[Any, bool]:
    """The data set, and whether its source has splits."""
    kind, colon, argument = spec.partition(":")
    plain = {name.replace("-", ""): name for name, source in SOURCES.items() if bool(source.argument) == bool(colon)}
    name = plain.get(kind.strip().lower().replace("-", "").replace("_", ""))
    if name is not None:
        return SOURCES[name].open(argument, root, split, download), SOURCES[name].has_splits
    if not colon:
        raise ValueError(
            f"--data: got {spec!r}, expected {', '.join(FORMS)}{did_you_mean(spec.lower(), plain.values())}"
        )
    return _from_factory(spec), False


def from_digits(split: str) -> Arrays:
    train, test, classes = digits()
    part = train if split == "train" else test
    return Arrays(part.images, part.labels, ids=part.ids, classes=classes)


def from_torchvision(name: str, root: Path | None, split: str, download: bool) -> Arrays | Files:
    source = open_torchvision(name, root, train=split == "train", download=download)
    if hasattr(source, "samples"):  # ImageNet lies in files
        folder = Path(source.split_folder)
        ids = [Path(path).relative_to(folder).as_posix() for path, _ in source.samples]
        return Files(folder, ids, source.targets, classes=class_names(source))
    images = torch.from_numpy(channels_first(np.asarray(source.data), "the images"))
    return Arrays(images, torch.as_tensor(source.targets), classes=class_names(source))


def from_folder(text: str) -> Files:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # noqa: PLC0415 - needed for folders only

    folder = Path(text).expanduser()
    if not folder.is_dir():
        what = f"{folder} is a file, expected a folder" if folder.exists() else f"no folder {folder}"
        raise (ValueError if folder.exists() else FileNotFoundError)(f"--data: {what}")
    endings = (*IMG_EXTENSIONS, *_MORE_ENDINGS)
    found, skipped = _walk(folder, endings)
    if not found:
        raise ValueError(
            f"--data: {folder} holds no images, expected files that end with {', '.join(endings)}, alone or in one "
            "folder per class"
        )
    _say_skipped(folder, skipped)
    ids = [path.as_posix() for path in found]
    beside = [path for path in found if len(path.parts) == 1]
    if beside and len(beside) < len(found):
        inside = next(path for path in found if len(path.parts) > 1)
        raise ValueError(
            f"--data: {folder} has images beside folders of images, such as {beside[0]} beside {inside.parts[0]}; "
            "expected one folder per class and nothing beside them, or images without folders"
        )
    if beside:
        return Files(folder, ids, None)
    # An empty class keeps its number.
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))
    numbers = {name: number for number, name in enumerate(classes)}
    return Files(folder, ids, [numbers[path.parts[0]] for path in found], classes=classes)


def _walk(folder: Path, endings: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """The images below ``folder``, class by class, and what else lies there; hidden folders count as one."""
    found, skipped = [], []
    for parent, names, files in os.walk(folder, followlinks=True):
        here = Path(parent).relative_to(folder)
        skipped += [f"{(here / name).as_posix()}/" for name in names if _is_hidden(name)]
        names[:] = [name for name in names if not _is_hidden(name)]
        for name in files:
            if Path(name).suffix.lower() in endings:
                found.append(here / name)
            else:
                skipped.append((here / name).as_posix())
    # As torchvision's ImageFolder: folder by folder, the files of each by name.
    return sorted(found, key=lambda path: (path.parts[0], str(path.parent), path.name)), sorted(skipped)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _say_skipped(folder: Path, skipped: Sequence[str]) -> None:
    if skipped:
        more = ", ..." if len(skipped) > _NAMED else ""
        warnings.warn(
            f"--data: {folder}: {len(skipped)} skipped, hidden or no images: {', '.join(skipped[:_NAMED])}{more}",
            UserWarning,
            stacklevel=2,
        )


def from_hugging_face(name: str, split: str, download: bool) -> Any:
    return as_dataset(open_hugging_face(name.strip(), split, download=download))


def _from_factory(spec: str) -> Any:
    factory = parse_factory(spec, "--data")
    made: Any = call_factory(factory, "--data", ready=(Dataset, Sized))
    label = f"--data: {factory.name}() of {factory.source} returned an object of type {type(made).__name__}"
    try:
        dataset = as_dataset(made)
        length = len(dataset)
    except (TypeError, ValueError, NotImplementedError) as error:
        expected = "expected a map-style torch.utils.data.Dataset: made[i] and len(made)"
        raise TypeError(f"{label}, {expected} ({reason(error)})") from error
    if not length:
        raise ValueError(f"{label} without samples")
    return dataset
