"""The shipped recipes, each with the file that holds it."""

from understudy.config import tables


def file_of(name: str) -> str:
    """The file of a recipe, such as `cifar100/kd`; a table holds several."""
    path = tables.shipped()[name]
    return f"{path.parent.name}/{path.stem}"


def by_file() -> dict[str, list[str]]:
    """File → its recipes."""
    files: dict[str, list[str]] = {}
    for name in tables.shipped():
        files.setdefault(file_of(name), []).append(name)
    return files
