"""Data sets of Hugging Face: in a folder, in the local cache, or fetched where that is allowed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_alignment.study.load._factories import did_you_mean, reason


def open_hugging_face(text: str, split: str, *, download: bool) -> Any:
    """The split of the data set ``text``: what `datasets.load_dataset` takes, with the configuration after a colon.

    Raises:
        ModuleNotFoundError: no `datasets`.
        FileNotFoundError: not in the cache, and ``download`` is not set.
        ConnectionError: it could not be downloaded.
        ValueError: no such split, or nothing that can be read.
    """
    try:
        import datasets  # noqa: PLC0415 - needed for these data sets only  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        # Without a name, which would stand for what the extra `study` brings.
        raise ModuleNotFoundError("--data: datasets is not installed: pip install datasets") from error
    folder, (name, _, configuration) = Path(text).expanduser(), text.partition(":")
    try:
        if folder.is_dir() and any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(str(folder))  # what `save_to_disk` wrote
        else:
            found = datasets.load_dataset(
                str(folder) if folder.is_dir() else name,
                configuration or None,
                download_config=datasets.DownloadConfig(local_files_only=not download),
            )
    except Exception as error:
        if not download:
            raise FileNotFoundError(
                f"--data: no {text} in a folder or Hugging Face's cache ({reason(error)}); --download fetches it"
            ) from error
        kind = ConnectionError if isinstance(error, OSError) else ValueError
        raise kind(f"--data: the data set {text} did not arrive ({reason(error)})") from error
    if not isinstance(found, Mapping):
        return found
    if split not in found:
        names = list(map(str, found))
        raise ValueError(f"--split: got {split!r}, {text} has {', '.join(names)}{did_you_mean(split, names)}")
    return found[split]
