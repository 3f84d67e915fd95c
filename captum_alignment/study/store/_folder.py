"""The folder of a study or an evaluation: whose it is, and whether it may be continued."""

import json
from pathlib import Path
from typing import Any

from captum_alignment.study.store._files import is_leftover, remove_leftovers, versions, write_json

#: Version of the layout of the folders, by kind; a folder of another one is refused.
SCHEMAS = {"study": 3, "supplement": 3}
_SCHEMA = 2
_MANIFEST = "manifest.json"


def open_folder(path: Path, kind: str, config: dict[str, Any]) -> None:
    """Make ``path`` the folder of the study or evaluation (``kind``) ``config``, or continue the one that it holds.

    Raises:
        ValueError: it holds something else, or one of another configuration; the message shows the difference.
    """
    manifest = path / _MANIFEST
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out: {path} is a file, expected a folder")
    started = path.is_dir() and any(not is_leftover(item) and item != manifest for item in path.iterdir())
    if manifest.is_file():
        changed = difference(_held(path, kind), json.loads(json.dumps(config)))
        if changed and not started:
            manifest.unlink()
        elif changed:
            raise ValueError(
                f"--out: {path} holds {_article(kind)} of another configuration ({'; '.join(changed)}); "
                "use a new folder, or the same options to continue"
            )
    elif started:
        raise ValueError(f"--out: {path} is not empty and holds no {kind}, expected a new or empty folder")
    path.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    if not manifest.is_file():
        write_json(manifest, {"kind": _name(kind), "schema": schema(kind), "config": config, "versions": versions()})


def read_manifest(path: Path, kind: str, *, option: str = "--out") -> dict[str, Any]:
    """The manifest of the folder ``path``: kind, schema, config, versions.

    Raises:
        ValueError: it holds no ``kind``, or one of another schema.
    """
    content = _content(path, kind)
    if content is None:
        raise ValueError(f"{option}: {path} holds no {kind}")
    if content.get("schema") != schema(kind):
        found = content.get("schema")
        raise ValueError(f"{option}: {path} was written with schema {found}, expected {schema(kind)}: use a new folder")
    if not isinstance(content.get("config"), dict):
        raise ValueError(f"{option}: {path / _MANIFEST} is damaged, its configuration is missing: use a new folder")
    return content


def schema(kind: str) -> int:
    return SCHEMAS.get(kind, _SCHEMA)


def _held(path: Path, kind: str) -> dict[str, Any]:
    """The configuration of what ``path`` holds."""
    if _content(path, kind) is None:
        raise ValueError(f"--out: {path} holds a {_MANIFEST} that is no {kind}'s, expected a new or empty folder")
    return read_manifest(path, kind)["config"]


def _content(path: Path, kind: str) -> dict[str, Any] | None:
    """The manifest of the folder ``path``; None where it is none of ``kind``."""
    try:
        content = json.loads((path / _MANIFEST).read_text("utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) and content.get("kind") == _name(kind) else None


def _name(kind: str) -> str:
    return f"captum-alignment {kind}"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two configurations, one ``key: old there, new here`` each."""
    keys = [*old, *(key for key in new if key not in old)]
    absent = object()
    return [
        f"{key}: {show(old.get(key, 'absent'))} there, {show(new.get(key, 'absent'))} here"
        for key in keys
        if old.get(key, absent) != new.get(key, absent)
    ]


def show(value: Any) -> str:
    """A value of a configuration on one line."""
    if isinstance(value, list):
        return " ".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
