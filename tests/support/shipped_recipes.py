"""The shipped recipes, each with the file that holds it."""

from functools import cache

from understudy.config import tables


@cache
def by_file() -> dict[str, list[str]]:
    """File, such as `cifar100/kd` → its recipes; a table holds several."""
    files: dict[str, list[str]] = {}
    for name, path in tables.shipped().items():
        files.setdefault(f"{path.parent.name}/{path.stem}", []).append(name)
    return files
