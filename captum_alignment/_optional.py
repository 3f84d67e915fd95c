"""Public names and rooms that load on first use; without what they need names say which extra brings it."""

from collections.abc import Mapping, Sequence
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


class WhenUsed:
    """Stands for a module that is imported when the first of its names is read.

    A table of what there is can so be read before what its rows make is loaded. Type checkers see the module itself,
    which is imported ``if TYPE_CHECKING``.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)


def on_first_use(
    package: str, modules: Mapping[str, Sequence[str]], needs: Mapping[str, str] | None = None
) -> tuple[Any, Any]:  # of callables, a type checker would take every misspelt name of the package for one of its own
    """``__getattr__`` and ``__dir__`` of ``package``, which has the names of its ``modules`` without importing them.

    Public modules are names of it too.

    Args:
        package: its ``__name__``.
        modules: {module: names} of the package; a further dot leads out of it, to a module beside it.
        needs: {module: extra} of this distribution that brings what the module imports. Without that the module's
            names are stand-ins; of a module that is not named here the import error is raised as it is.
    """
    where = {name: module for module, names in modules.items() for name in names}
    rooms = {module for module in modules if not module.startswith(("_", "."))}

    def __getattr__(name: str) -> Any:
        if name in rooms:
            return import_module(f".{name}", package)
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = where[name]
        try:
            return getattr(import_module(f".{module}", package), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", "captum_alignment") or module not in (needs or {}):
                raise  # a fault of ours, or an error that names nothing
            message = f"{name} needs {missing}: pip install 'captum-alignment[{(needs or {})[module]}]'"
            return _Missing(name, (), {"__doc__": message})

    def __dir__() -> list[str]:
        return sorted({*vars(import_module(package)), *where, *rooms})

    return __getattr__, __dir__
