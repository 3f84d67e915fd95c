"""Public names that load on first use; without what they need they say which extra brings it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NoReturn


class _Missing(type):
    """The type of a stand-in, with which `hasattr` and star imports work; calling or subclassing it raises."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> "_Missing":
        if bases:
            raise ImportError(bases[0].__doc__)
        return super().__new__(cls, name, bases, namespace)

    def __call__(cls, *_args: object, **_kwargs: object) -> NoReturn:
        raise ImportError(cls.__doc__)


def on_first_use(package: str, extras: Mapping[str, Mapping[str, str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``package``, for names that need optional dependencies.

    Args:
        package: its ``__name__``.
        extras: for each extra of this distribution the names that need it, and the package's module of each.
    """
    where = {name: (module, extra) for extra, names in extras.items() for name, module in names.items()}

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, extra = where[name]
        try:
            return getattr(import_module(f"{package}.{module}"), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", "captum_alignment"):
                raise  # a fault of ours, or an error that names nothing
            message = f"{name} needs {missing}: pip install 'captum-alignment[{extra}]'"
            return _Missing(name, (), {"__doc__": message})

    return __getattr__
