"""Which Python files of networks and transforms may be executed without asking. Imports no torch.

A network or a transform may be a function in a Python file, which building it executes. What the
user names is executed: a flag, or an argument in Python. So is a file of the working folder, which
is the user's, by whatever it is named, unless it came with the run directory that names it.
Everything else needs `trust`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.errors import NetworkError, RecipeError


def file_of(name: str) -> Path | None:
    """Return the Python file of a network's name `path/to/file.py:factory`; None for others."""
    return Path(name.rpartition(":")[0]) if ".py:" in name else None


def is_own(file: Path, *, received: Path | None = None) -> bool:
    """Return True if a file lies in the working folder, and not in a folder that names it.

    Args:
        file: The file, which need not exist.
        received: Folder that names the file, such as a run directory of somebody else.
    """
    place = file.resolve()
    with_it = received is not None and place.is_relative_to(received.resolve())
    return place.is_relative_to(Path.cwd().resolve()) and not with_it


def check_recipe_file(
    recipe: str | Path, content: Mapping[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Refuse a recipe's file that names a Python file outside the working folder.

    Args:
        recipe: Path of the recipe's file.
        content: Its keys, with those of its bases.
        overrides: Keys that the user replaces, by dotted paths.

    Raises:
        NetworkError: It names such a file, which the user neither names nor trusts.
        RecipeError: Likewise, for a transform.
    """
    if overrides.get("trust", content.get("trust") and is_own(Path(recipe))):
        return
    for role, named in _networks(content):
        called = named.get("name") if isinstance(named, Mapping) else named
        name = called if isinstance(called, str) else ""
        file = file_of(name)
        group = role.partition(".")[0]
        replaced = {group, role, f"{role}.name"} & overrides.keys()
        if file is not None and not replaced and not is_own(file):
            raise NetworkError(
                f"The recipe {str(recipe)!r} builds its {role} by the file {str(file)!r}, which "
                "would be executed and lies outside the working folder: if you know this file, "
                f"name it yourself by --{role}.name {name}, or give --trust true."
            )
    data = content.get("data")
    entries = data.get("transforms") if isinstance(data, Mapping) else None
    _check_transforms(recipe, () if "data.transforms" in overrides else entries)


def _networks(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield key and value of the networks in a recipe's file that is not checked yet."""
    for role in ("student", "teacher"):
        yield role, content.get(role)
    teachers = content.get("teachers")
    for label, spec in teachers.items() if isinstance(teachers, Mapping) else ():
        yield f"teachers.{label}", spec


def transform_names(entries: Any) -> Iterator[str]:
    """Yield the names of the transforms of a recipe, and of those inside of them.

    Args:
        entries: `data.transforms`, perhaps of a file that is not checked yet.
    """
    for entry in entries if isinstance(entries, list | tuple) else ():
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, Mapping):
            yield str(entry.get("name", ""))
            yield from transform_names(entry.get("transforms"))


def check_transforms_of_run(entries: Any, folder: Path) -> None:
    """Refuse to continue a run that names a Python file for a transform, unless it is the user's.

    Args:
        entries: `data.transforms` of the run.
        folder: Its directory, which somebody else may have made.

    Raises:
        RecipeError: It names such a file.
    """
    for name in transform_names(entries):
        file = file_of(name)
        if file is not None and not is_own(file, received=folder):
            raise RecipeError(
                f"The run {str(folder)!r} transforms images by the file {str(file)!r}, which would "
                "be executed, but lies outside the working folder or in the run itself: if you "
                "know this file, give --trust true."
            )


def _check_transforms(recipe: str | Path, entries: Any) -> None:
    for name in transform_names(entries):
        file = file_of(name)
        if file is not None and not is_own(file):
            raise RecipeError(
                f"The recipe {str(recipe)!r} transforms images by the file {str(file)!r}, which "
                "would be executed and lies outside the working folder: if you know this file, "
                "name it yourself by --data.transforms, or give --trust true."
            )
