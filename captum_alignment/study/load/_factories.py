"""What a user's own file or package makes: ``file.py:factory``, ``package.module:factory``, with literal arguments."""

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

_SEPARATORS = re.compile(r"[/\\]")
#: So much of a message is repeated.
_LONGEST = 300


@dataclass(frozen=True)
class Factory:
    """What a specification names: ``name`` in the file or module ``source``, to be called with the arguments.

    Attributes:
        called: whether the specification has parentheses; without them an object that is ready is taken as it is.
    """

    source: str
    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    called: bool = False

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".py") or bool(_SEPARATORS.search(self.source))


def short_name(spec: str) -> str:
    """``spec`` without the folders of its file: ``models/zoo.py:load("cnn")`` is ``zoo.py:load("cnn")``."""
    parsed = _split(spec)
    return f"{_SEPARATORS.split(parsed[0])[-1]}:{spec[len(parsed[0]) + 1 :].strip()}" if parsed else spec


def parse_factory(spec: str, option: str) -> Factory:
    """What ``spec`` says: a name after a colon, or a call of a name with literal arguments only.

    Raises:
        ValueError: anything else; nothing in ``spec`` is ever evaluated. ``option`` is what the message calls it.
    """
    parsed = _split(spec)
    if parsed is None:
        raise ValueError(f"{option}: got {spec!r}, expected file.py:factory or package.module:factory")
    source, expression = parsed
    call = expression if isinstance(expression, ast.Call) else None
    function = call.func if call is not None else expression
    try:
        if not isinstance(function, ast.Name):
            raise ValueError
        args = tuple(ast.literal_eval(item) for item in call.args) if call is not None else ()
        # A keyword without a name is **mapping.
        keywords = [(item.arg, ast.literal_eval(item.value)) for item in call.keywords] if call is not None else []
        kwargs = {name: value for name, value in keywords if name is not None}
        if len(kwargs) < len(keywords):
            raise ValueError
    except ValueError as error:
        raise ValueError(
            f"{option}: got {spec!r}, expected a name after the colon, or its call with literal arguments as in "
            f'{_SEPARATORS.split(source)[-1]}:load("name", size=3)'
        ) from error
    return Factory(source, function.id, args, kwargs, called=call is not None)


def _split(spec: str) -> tuple[str, ast.expr] | None:
    """The source, and the expression after the first colon that has one; paths and arguments have colons too."""
    for colon in (match.start() for match in re.finditer(":", spec)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Windows paths among the arguments are full of invalid escapes
                expression = ast.parse(spec[colon + 1 :].strip(), mode="eval").body
        except (SyntaxError, ValueError):
            continue
        return (spec[:colon], expression) if colon else None
    return None


def call_factory(factory: Factory, option: str, *, ready: type | tuple[type, ...]) -> Any:
    """What the factory returns; an attribute that is a ``ready`` itself, and is not called, is taken as it is.

    While it is loaded and called, the folder of its file (for a module: the current one) is importable.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: no such module.
        ValueError: no such attribute, or the user's code raised; the message has what it raised.
        TypeError: the attribute can not be called.
    """
    label = f"{factory.name}() of {factory.source}"
    with _importable(Path(factory.source).expanduser().resolve().parent if factory.is_file else Path.cwd()):
        module = _load_file(factory, option) if factory.is_file else _load_module(factory, option)
        try:
            made = getattr(module, factory.name)
        except AttributeError as error:
            known = [name for name in vars(module) if not name.startswith("_")]
            raise ValueError(
                f"{option}: {factory.source} has no {factory.name!r}{did_you_mean(factory.name, known)}"
            ) from error
        if isinstance(made, ready) and not factory.called:
            return made
        if not callable(made):
            raise TypeError(
                f"{option}: {factory.name!r} of {factory.source} is of type {type(made).__name__}, expected a function"
            )
        try:
            return made(*factory.args, **factory.kwargs)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{option}: {label} raised {reason(error)}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _load_file(factory: Factory, option: str) -> ModuleType:
    path = Path(factory.source).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{option}: no file {factory.source}{did_you_mean(path.name, _beside(path))}")
    if path.suffix != ".py":
        raise ValueError(f"{option}: {factory.source} is no Python file, expected one that ends with .py")
    # A name of its own, because a user's models.py must not become everybody's `models`.
    name = f"_captum_alignment_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{option}: {factory.source} raised {reason(error)}") from error
    return module


def _load_module(factory: Factory, option: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(factory.source)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{factory.source}.".startswith(f"{missing}."):
            # Without a name, which would stand for an optional dependency of this package.
            raise ModuleNotFoundError(
                f"{option}: no module {factory.source!r}, neither installed nor in the current folder"
            ) from error
        raise ValueError(f"{option}: {factory.source} raised {reason(error)}") from error


def _beside(path: Path) -> list[str]:
    return [item.name for item in path.parent.glob("*.py")] if path.parent.is_dir() else []


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """The end of a sentence on the unknown ``name``: what of ``known`` resembles it, after ``prefix``; or nothing."""
    near = get_close_matches(name, list(known), n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(prefix + item for item in near)}?" if near else ""


def reason(error: BaseException) -> str:
    """The type and the first line of the message of ``error``, for a sentence; the type alone where nothing is said."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # a class of the user's may fail even here
        lines = []
    first = "".join(letter if letter.isprintable() else " " for letter in lines[0]) if lines else ""
    return f"{type(error).__name__}: {first.strip()[:_LONGEST]}" if first.strip() else type(error).__name__
