"""Python files of users: import a function of one, and the modules beside it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from understudy.errors import UnderstudyError, suggestion


@contextmanager
def modules_in(*folders: str) -> Iterator[None]:
    """Let a user's own modules be imported from some folders meanwhile, after all other places.

    A file `rich.py` in one of them does not take the place of the package of that name.
    """
    added = [folder for folder in folders if folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def import_function(path: Path, function: str, *, raising: type[UnderstudyError]) -> Any:
    """Import a user's Python file, which executes it, and return one of its functions.

    Args:
        path: The file.
        function: Name of the function.
        raising: Class of the errors.

    Raises:
        UnderstudyError: There is no such file or function, or the file cannot be imported.
    """
    name = f"{path}:{function}"
    spec = spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        seen = "" if path.is_absolute() else f" as seen from the present folder {Path.cwd()}"
        raise raising(f"There is no Python file {str(path)!r}{seen}, asked for by {name!r}.")
    module = module_from_spec(spec)
    try:
        with modules_in("", str(path.parent)):
            spec.loader.exec_module(module)
    except Exception as error:
        raise raising(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        raise raising(f"{path} has no function {function!r}{suggestion(function, vars(module))}.")
    return getattr(module, function)
