"""Recipes by name: files with a base, and tables of which every row is a recipe.

A file below `understudy/recipes` is the recipe `<folder>/<file>`, without `.yaml`. A file with
`rows` is a table: each row is the recipe `<folder>/<file>/<row>`. Three keys are not part of the
experiment; your own files may have them too:

- `base` names a recipe or a file whose keys hold unless this file sets them. If the base is a
  table, the row of the same name is meant. A table without one has `_papers`, in which nothing is
  left to be chosen: its rows are protocols.
- `rows` maps the name of each row to the keys that differ, by dotted paths. A row that is only a
  number is the published result.
- `about` tells what is known of the experiment: see `About`.

Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from understudy.config.limits import PathText
from understudy.config.schema import build, convert
from understudy.config.yaml_text import from_yaml
from understudy.errors import NameNotFound, RecipeError, short, suggestion

ROOT = Path(__file__).parents[1] / "recipes"
PAPERS = "_papers"
"""Recipe with the values that papers' recipes have where they say nothing: the base of tables."""

_Place = tuple[Path, str]
"""A file, and the name of a row in it; empty if the file is not a table."""


@dataclass(frozen=True)
class About:
    """Published figures of an experiment: top-1, mAP or AP50 in percent, depending on the task."""

    paper: str = ""
    """Authors, venue and year."""
    table: str = ""
    """Where the paper or its code gives the figures or the hyper-parameters."""
    published: str = ""
    """Figure of the trained student; empty if unknown."""
    student: str = ""
    """Figure of the student alone."""
    teacher: str = ""
    """Figure of the teacher."""
    cost: str = ""
    """Time and memory needed."""
    epoch: Literal["", "last", "best"] = ""
    """Epoch of the figure: the last, or the best on the test images; empty if that is unknown."""
    runs: str = ""
    """Number of runs of which the figure is the mean; empty if unknown."""
    teachers: str = ""
    """Table whose rows train the teachers of this one, or a recipe that trains its only teacher."""
    first: str = ""
    """Recipe of the previous stage, whose student this one starts from."""
    note: str = ""
    """Anything else needed to interpret the figures."""


@cache
def shipped() -> Mapping[str, Path]:
    """Return name → file of every shipped recipe, sorted by name."""
    files: dict[str, Path] = {}
    for name, path in tables().items():
        rows = _shipped(path).get("rows")
        files |= {f"{name}/{row}": path for row in rows} if rows else {name: path}
    return MappingProxyType(dict(sorted(files.items())))


@cache
def tables() -> Mapping[str, Path]:
    """Return name → path of every shipped recipe file; a table counts once."""
    files = (path for path in sorted(ROOT.rglob("*.yaml")) if not path.name.startswith("_"))
    return MappingProxyType(
        {path.relative_to(ROOT).with_suffix("").as_posix(): path for path in files}
    )


def name_of(name_or_path: str | Path) -> str:
    """Return the name of a recipe: the name it is shipped under, or that of its file or row."""
    path, row = _place(str(name_or_path))
    return str(name_or_path) if path.is_relative_to(ROOT) else row or path.stem


def read(name_or_path: str | Path) -> dict[str, Any]:
    """Return the keys of a recipe over those of its bases, without `about`.

    Raises:
        NameNotFound: Neither a file nor the name of a shipped recipe.
        RecipeError: Not YAML, no row of a table, or a base that leads back to itself.
    """
    content = _resolved(_place(str(name_or_path)))
    content.pop("about", None)
    return content


def about(name_or_path: str | Path) -> About:
    """Return the published figures of a recipe.

    Raises:
        NameNotFound: Neither a file nor the name of a shipped recipe.
        RecipeError: As for `read`; also an unknown key of `about`.
    """
    known = _resolved(_place(str(name_or_path))).get("about", {})
    if isinstance(known, dict):
        known = {key: _figure(value) for key, value in known.items()}
    return build(About, known, "about")


def rows(table: str | Path) -> tuple[str, ...]:
    """Return the names of the rows of a table, in its order.

    Args:
        table: Name of a shipped table, or path of a file.

    Raises:
        NameNotFound: Neither a file nor the name of a shipped table.
        RecipeError: Not YAML, or a recipe without rows.
    """
    path = _file(str(table))
    content = content_of(path).get("rows")
    if not isinstance(content, dict) or not content:
        raise RecipeError(
            f"{_called((path, ''))} is a single recipe, no table of several: name a table, such as "
            "cifar100/kd, or run the recipe by `understudy distill` or `train`."
        )
    return tuple(content)


def beside(name: str, recipe: str | Path) -> str:
    """Return a recipe that another one names: in a file beside it, or else a shipped one."""
    folder = _place(str(recipe))[0].parent
    nearby = folder / name, folder / name.rpartition("/")[0]
    return str(folder / name) if any(path.is_file() for path in nearby) else name


def _file(name: str) -> Path:
    """Return the file of a table.

    Raises:
        NameNotFound: Neither a file nor the name of a shipped table.
        RecipeError: It is a row of one.
    """
    for path in (Path(name), ROOT / f"{name}.yaml"):
        if path.is_file():
            return path
    path, row = _place(name)
    raise RecipeError(f"{name} is a row of a table: name {_called((path, ''))} and --rows {row}.")


def put(content: dict[str, Any], path: str, value: Any) -> None:
    """Set the key at a dotted path, creating the groups it needs.

    Raises:
        RecipeError: A part of the path is a value, not a group.
    """
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise RecipeError(f"'{path}' cannot be set: '{parent}' is a value, no group of keys.")
    content[last] = value


def _place(name: str, row: str = "", beside: Path = Path()) -> _Place:
    """Return file and row of a recipe; `row` is used where the name is only that of a table."""
    folder, _, last = name.rpartition("/")
    places = [(beside / name, row), (beside / folder, last)]
    places += [(ROOT / f"{name}.yaml", row), (ROOT / f"{folder}.yaml", last)]
    convert(PathText, name, "recipe")
    for path, named in places:
        if path.is_file():
            return path, named if "rows" in content_of(path) else ""
    raise NameNotFound("recipe", name, tables(), "A recipe may also be a file.")


def _resolved(place: _Place, above: tuple[_Place, ...] = ()) -> dict[str, Any]:
    """Return the keys of a recipe over those of its base, recursively."""
    if place in above:
        raise RecipeError(f"The recipe {_called(place)} is its own base; name another one.")
    path, row = place
    content = dict(content_of(path))
    differing, base = _row(content.pop("rows", {}), place), content.pop("base", "")
    base = convert(PathText, differing.pop("base", base), "base") or (PAPERS if row else "")
    below = _resolved(_place(base, row, path.parent), (*above, place)) if base else {}
    below.pop("name", None)
    result = merged(below, content)
    for key, value in differing.items():
        put(result, key, value)
    return result


def _row(rows: Any, place: _Place) -> dict[str, Any]:
    """Return dotted path → value of the keys that a row changes."""
    path, row = place
    if rows == {}:
        return {}
    if not isinstance(rows, dict):
        raise RecipeError(
            f"'rows' of {_called((path, ''))} must be a group of keys, not {short(rows)}."
        )
    rows = convert(dict[str, Any], rows, "rows")
    if not row:
        raise RecipeError(
            f"{_called(place)} is a table of {len(rows)} recipes; name a row, such as "
            f"{_called(place)}/{next(iter(rows))}."
        )
    if row not in rows:
        raise RecipeError(
            f"The table {_called((path, ''))} has no row {row!r}{suggestion(row, rows)}. "
            f"There are: {', '.join(rows)}."
        )
    differing = rows[row]
    if isinstance(differing, dict):
        convert(dict[str, Any], differing, f"rows.{row}")  # whose keys must be text
    return dict(differing) if isinstance(differing, dict) else {"about.published": differing}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two groups of keys, group by group; a network may be just its name in either."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, dict):
            group = {"name": old} if isinstance(old, str) else old
            value = merged(group if isinstance(group, dict) else {}, value)
        result[key] = value
    return result


def _called(place: _Place) -> str:
    path, row = place
    inside = path.is_relative_to(ROOT)
    name = path.relative_to(ROOT).with_suffix("").as_posix() if inside else str(path)
    return f"{name}/{row}" if row else name


def _figure(value: Any) -> str:
    """Return a figure as it is printed, with the trailing zeros that YAML drops."""
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def content_of(path: Path) -> dict[str, Any]:
    """Return what the file of a recipe holds, with `base`, `rows` and `about`.

    Raises:
        RecipeError: It is not YAML, or holds no keys.
    """
    return _shipped(path) if path.is_relative_to(ROOT) else _parsed(path)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = _value(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no keys; a recipe starts with lines such as 'student:'.")
    return content


# Before a run starts, the recipe of its teacher is asked for three times.
_value = lru_cache(maxsize=32)(from_yaml)
_shipped = cache(_parsed)
"""Files in the wheel do not change."""
