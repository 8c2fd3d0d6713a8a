"""Distillation methods, one file per paper; the file name is the method's name in the registry.

A method outside this folder is named by its import path, `package.module:ClassName`.
"""

from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import Any, get_origin

from understudy.errors import NameNotFound, RecipeError
from understudy.methods._grouped import Grouped as Grouped
from understudy.methods._joined import Call as Call
from understudy.methods._joined import check_joined as check_joined
from understudy.methods._joined import joint_losses as joint_losses
from understudy.methods._method import Method as Method
from understudy.python_files import modules_in


def names() -> list[str]:
    """List the names of all methods shipped with Understudy."""
    return sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> type[Method]:
    """Return the class of a method, by its name or import path.

    Raises:
        NameNotFound: No such method; suggests the nearest spelling.
        RecipeError: The import path does not name a subclass of `Method`.
    """
    if ":" in name:
        return _import(name)
    if name not in names():
        raise NameNotFound(
            "method", name, names(), "A method of your own is named by 'package.module:ClassName'."
        )
    module = import_module(f"{__name__}.{name}")
    # Each file defines exactly one method; imported classes belong to other modules.
    (method,) = (
        value
        for value in vars(module).values()
        # An alias such as `list[int]` counts as a type in Python 3.10.
        if isinstance(value, type)
        and get_origin(value) is None
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    )
    return method


def hyper_parameters(method: type[Method]) -> dict[str, Any]:
    """Return name → default of a method's keyword-only arguments."""
    parameters = signature(method.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _import(path: str) -> type[Method]:
    module_name, _, class_name = path.partition(":")
    try:
        with modules_in(""):
            method = getattr(import_module(module_name), class_name)
    except Exception as error:  # whatever the user's own code raises
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise RecipeError(f"Method {path!r} cannot be imported: {words}.") from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise RecipeError(f"{path!r} is not a subclass of understudy.methods.Method.")
    return method
