"""Rows of a table as runs to train: the teacher of each, its first stage, and its own student."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, final

from understudy.config import tables
from understudy.config.recipe import Network, Recipe
from understudy.config.tables import About
from understudy.errors import NameNotFound, RecipeError
from understudy.experiment.run_directory import Run
from understudy.reproduction.shorter import shortened

_SHARED = ("data", "training", "trust")
"""Groups of keys that are replaced for teachers and first stages too."""
_OWN = ("methods", "task_weight")
"""Groups of keys that are replaced for the rows alone."""


@final
@dataclass(frozen=True)
class Stage:
    """One run: what to train, where, and after which others.

    Attributes:
        name: What progress calls it.
        recipe: What to train; its `teacher.weights` may be a run that is still to come.
        path: Run directory.
        after: Runs that it needs.
    """

    name: str
    recipe: Recipe
    path: Path
    after: "tuple[Stage, ...]" = ()

    @property
    def run(self) -> Run:
        """Its run directory."""
        return Run(self.path)

    def unfinished(self) -> "list[Stage]":
        """Return the runs it needs and itself, in their order, without those that are finished."""
        before = [stage for needed in self.after for stage in needed.unfinished()]
        each = {stage.path: stage for stage in [*before, *([] if self.run.finished else [self])]}
        return list(each.values())


TEACHERS = "teachers"
"""Folder of the runs of teachers, which tables share."""


@final
@dataclass(frozen=True)
class Settings:
    """How all rows are run.

    Attributes:
        root: Directory of all tables: teachers and banks are shared.
        overrides: Keys of the recipes to replace.
        share: Share of the epochs.
        teachers: Folder with weights of the teachers; None to train them.
    """

    root: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    teachers: Path | None = None

    def __post_init__(self) -> None:
        """Refuse keys that the rows decide.

        Raises:
            RecipeError: Such a key is replaced, or the share is out of its range.
        """
        if not 0 < self.share <= 1:
            raise RecipeError(
                f"--epochs-scale is {self.share:g}; it must be above 0 and at most 1, such as 0.25."
            )
        for key in self.overrides:
            if key.split(".")[0] not in (*_SHARED, *_OWN):
                raise RecipeError(
                    f"'{key}' cannot be replaced for a whole table: its rows name their networks "
                    "and their task. Seeds are given by --seeds, teachers by --teachers; banks are "
                    f"kept in --out. Keys of {', '.join((*_SHARED, *_OWN))} can be."
                )

    def recipe(self, name: str, *, own: bool) -> Recipe:
        """Return a recipe as it is to be trained; `own` for a row, not for what it needs."""
        groups = (*_SHARED, *_OWN) if own else _SHARED
        overrides = {k: v for k, v in self.overrides.items() if k.split(".")[0] in groups}
        # Both figures are recorded, that of the last and that of the best epoch.
        best = {} if _sets(overrides, "validation", "best") else {"training.best": "test"}
        return shortened(Recipe.load(name, {**best, **overrides}), self.share)


def _sets(overrides: Mapping[str, Any], *keys: str) -> bool:
    """Return True if one of some keys is replaced, by its dotted path or in its group."""
    names = {key.rpartition(".")[2] for key in overrides}
    names |= {key for value in overrides.values() if isinstance(value, Mapping) for key in value}
    return not names.isdisjoint(keys)


@final
@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Name within the table.
        published: The recipe as it is shipped.
        recipe: The recipe as it is to be trained, without the weights of its teacher.
        about: What is known of its figures.
        folder: Directory of its runs.
        teacher: The run of its teacher; None if it has none or the weights are there.
        weights: Weights of the teacher; empty if it has none.
        first: The recipe of its first stage; empty if there is none.
        settings: How it is run.
    """

    name: str
    published: Recipe
    recipe: Recipe
    about: About
    folder: Path
    teacher: Stage | None
    weights: str
    first: str
    settings: Settings

    def stage(self, seed: int) -> Stage:
        """Return the run of a seed."""
        recipe = _taught(self.recipe, self.weights, name=f"{self.name} seed {seed}", seed=seed)
        after = [self.teacher] if self.teacher else []
        if self.first:
            first = _first_stage(self, seed)
            after.append(first)
            student = replace(recipe.student, weights=str(first.path / "last"))
            recipe = replace(recipe, student=student)
        return Stage(recipe.name, recipe, self.folder / f"seed{seed}", tuple(after))


def rows(table: str, patterns: Sequence[str], settings: Settings) -> list[Row]:
    """Return the rows of a table that match one of some patterns; all without a pattern.

    Args:
        table: Name of a shipped table, or path of a file.
        patterns: Names of rows, with `*` and `?`.
        settings: How they are run.

    Raises:
        NameNotFound: There is no such table, or no row matches a pattern.
        RecipeError: A recipe makes no sense, or nothing says how to train its teacher.
    """
    names = tables.rows(table)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise NameNotFound("row", pattern, names, "Patterns may hold * and ?.")
    chosen = [n for n in names if not patterns or any(fnmatchcase(n, p) for p in patterns)]
    return [_row(table, name, settings) for name in chosen]


def folder_of(table: str, root: Path) -> Path:
    """Return the directory of a table: `<root>/<folder>/<file>`, or that of the file's name."""
    return root / (table if table in tables.tables() else Path(table).stem)


def _row(table: str, name: str, settings: Settings) -> Row:
    full = f"{table}/{name}"
    about = tables.about(full)
    recipe = settings.recipe(full, own=True)
    teacher, weights = _teacher(recipe, about, table, settings)
    first = _first_name(about, table, name)
    return Row(
        name=name,
        published=Recipe.read(full),
        recipe=recipe,
        about=about,
        folder=folder_of(table, settings.root) / name,
        teacher=teacher,
        weights=weights,
        first=first,
        settings=settings,
    )


def _first_name(about: About, table: str, row: str) -> str:
    """Return the recipe of the first stage: the row of the same name, if it is a table."""
    if not about.first:
        return ""
    first = tables.beside(about.first, table)
    try:
        return f"{first}/{row}" if row in tables.rows(first) else first
    except (NameNotFound, RecipeError):
        return first


def _first_stage(row: Row, seed: int) -> Stage:
    recipe = row.settings.recipe(row.first, own=False)
    teacher, weights = _teacher(recipe, tables.about(row.first), row.first, row.settings)
    place = row.settings.root / "stages" / recipe.digest / f"seed{seed}"
    recipe = _taught(recipe, weights, name=f"{row.name} first stage seed {seed}", seed=seed)
    return Stage(recipe.name, recipe, place, (teacher,) if teacher else ())


def _taught(recipe: Recipe, weights: str, *, name: str, seed: int) -> Recipe:
    teacher = replace(recipe.teacher, weights=weights) if weights else recipe.teacher
    return replace(recipe, name=name, seed=seed, teacher=teacher)


def _teacher(
    recipe: Recipe, about: About, table: str, settings: Settings
) -> tuple[Stage | None, str]:
    """Return the run that trains the teacher of a recipe, if one does, and its weights.

    Raises:
        RecipeError: Nothing says how to train it, or the folder does not have it.
    """
    spec = recipe.teacher
    if recipe.teachers:
        raise RecipeError(
            f"The row {recipe.name} has several teachers, and a table trains or takes one teacher "
            "for each row: run it by `understudy distill`."
        )
    if not recipe.methods or not (spec.name or spec.weights):
        return None, ""
    if spec.weights:
        return None, spec.weights
    name = _trained_by(spec, about, table)
    label = name.rpartition("/")[2] or Path(spec.name).stem
    if settings.teachers:
        return None, str(_given_weights(settings.teachers, label))
    if not name:
        raise RecipeError(
            f"No table says how the teacher {spec.name} of {recipe.name} is trained (about."
            f"teachers): give its weights as {label}.safetensors or a run {label}/ in a folder "
            "that --teachers names."
        )
    taught = settings.recipe(name, own=False)
    taught = replace(taught, name=f"teacher {label}")
    path = settings.root / TEACHERS / taught.digest
    return Stage(taught.name, taught, path), str(path)


def _trained_by(spec: Network, about: About, table: str) -> str:
    """Return the recipe that trains a teacher; empty if `about.teachers` names none."""
    if not about.teachers:
        return ""
    place = tables.beside(about.teachers, table)
    try:
        names: Iterable[str] = [f"{place}/{row}" for row in tables.rows(place)]
    except RecipeError:
        return place
    alike = {name: Recipe.read(name).student for name in names}
    alike = {name: student for name, student in alike.items() if _same(student, spec)}
    exact = [name for name, student in alike.items() if student.options == spec.options]
    return next(iter([*exact, *alike]), "")


def _same(student: Network, teacher: Network) -> bool:
    """Return True if both are the same network, whatever a detector is given for its training."""
    backbones = [network.options.get("backbone") for network in (student, teacher)]
    plain = backbones[0] is None and student.options != teacher.options
    kinds = [(network.name, network.pool) for network in (student, teacher)]
    return kinds[0] == kinds[1] and backbones[0] == backbones[1] and not plain


def _given_weights(folder: Path, label: str) -> Path:
    """Return the weights of a teacher in a folder: a run directory, or a file of that name.

    Raises:
        RecipeError: There are none, or several.
    """
    candidates = [path for path in sorted(folder.glob(f"{label}.*")) if path.is_file()]
    candidates += [folder / label] if (folder / label).exists() else []
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates)
        raise RecipeError(
            f"{folder} has {names or 'no weights'} for the teacher {label}; --teachers needs one "
            f"file of weights {label}.safetensors (or another suffix) or one run {label}/ there."
        )
    return candidates[0]
