"""The result of a comparison: the content of `comparison.json`, and its tables. Loads no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from understudy.comparison.statistics import UNITLESS
from understudy.config.json_form import Form
from understudy.errors import NameNotFound, RunError
from understudy.experiment import plain_table
from understudy.experiment.run_directory import Run, read_json, refuse_without
from understudy.experiment.run_forms import TEACHER

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = "comparison.json"
"""File of a comparison directory that holds the result."""

_OVER_SEEDS: Form = {str: [(float, None)]}
_VERDICT: Form = {
    "word": str,
    "sentence": str,
    "difference": (float, None),
    "low": (float, None),
    "high": (float, None),
    "gap_closed": (float, None),
}
_ARM: Form = {
    "name": str,
    "methods": {str: {str: object}},
    "seeds": [int],
    "runs": [str],
    "failed?": {str: str},
    "metrics": _OVER_SEEDS,
    "fidelity": (_OVER_SEEDS, None),
    "per_class?": ([([(float, None)], None)], None),
    "cost": {
        "seconds": [(float, None)],
        "memory_mb": [(float, None)],
        "parameters?": (int, None),
        "train_parameters?": (int, None),
    },
    "verdict": (_VERDICT, None),
}
_COMPARISON: Form = {
    "name": str,
    "task": str,
    "metric": str,
    "recipe_digest": str,
    "machine": str,
    "created": str,
    "seconds": float,
    "classes": [str],
    "teacher": (TEACHER, None),
    "teachers?": {str: TEACHER},
    "arms": [_ARM],
}


def read_comparison(folder: Path) -> dict[str, Any]:
    """Return the content of the `comparison.json` of a directory.

    Raises:
        RunError: It is missing, damaged, or of another version of Understudy.
    """
    remedy = "compare again in another --out"
    content = read_json(folder / FILE, _COMPARISON, remedy=remedy)
    if not content["arms"]:
        raise RunError(f"{folder / FILE} is damaged, it has no arm: {remedy}.")
    for arm in content["arms"]:
        if not _consistent(arm, _class_count(content)) or not _judged(arm, content):
            raise RunError(
                f"{folder / FILE} is damaged, numbers of the arm {arm['name']!r} are missing: "
                f"{remedy}."
            )
    return content


def _class_count(content: Mapping[str, Any]) -> int:
    """Return the number of classes: of their names, or without names of the first row of values."""
    rows = (row for arm in content["arms"] for row in arm.get("per_class") or () if row)
    return len(content["classes"] or next(rows, ()))


def _judged(arm: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Return True if an arm with a verdict has the numbers it is about, for all the seeds."""
    verdict = arm["verdict"]
    if verdict is None or verdict["word"] in ("diverged", "failed"):
        return True
    values, control = (values_of(one, content["metric"]) for one in (arm, content["arms"][0]))
    complete = None not in (*values, *control, verdict["difference"])
    return complete and 0 < len(values) == len(control)


def values_of(arm: Mapping[str, Any], metric: str) -> list[float | None]:
    """Return the metric over the seeds, of the task or of fidelity."""
    values: list[float | None] = {**arm["metrics"], **(arm["fidelity"] or {})}.get(metric) or []
    return values


def known_values(arm: Mapping[str, Any], metric: str) -> list[float]:
    """Return the metric of those seeds that have one."""
    return [value for value in values_of(arm, metric) if value is not None]


def seed_of(run: str | Path) -> int:
    """Return the seed of a run of a comparison, from its directory `ARM/seedN`."""
    return int(Path(run).name.removeprefix("seed"))


def _consistent(arm: Mapping[str, Any], classes: int) -> bool:
    """Return True if every list of an arm has an entry for each run, or for each class."""
    measured = [*arm["metrics"].values(), *(arm["fidelity"] or {}).values()]
    measured += [arm["cost"]["seconds"], arm["cost"]["memory_mb"]]
    per_class = [row for row in arm.get("per_class") or () if row]
    return (
        len(arm["seeds"]) >= len(arm["runs"])
        and all(len(values) == len(arm["runs"]) for values in measured)
        and all(len(row) == classes for row in per_class)
    )


@dataclass(frozen=True, repr=False)
class Comparison:
    """Control and methods over the same seeds, with one verdict per method.

    `compare` returns it and `Comparison.load` reads it from a directory. A notebook shows it as a
    table. It stands for its directory wherever a path is expected: `understudy.report(comparison)`.
    """

    name: str
    """Name of the recipe."""
    task: str
    """Task of the recipe."""
    metric: str
    """Metric that the verdicts are about."""
    recipe_digest: str
    """Digest of the recipe."""
    machine: str
    """Processor and GPU."""
    created: str
    """Time of writing, in UTC."""
    seconds: float
    """Time of all runs together with their preparation, however often they were interrupted."""
    classes: list[str]
    """Class names; empty where none are known."""
    teacher: dict[str, Any] | None
    """Name, metrics and size of the teacher, and the time its outputs took; None without one, or
    with several."""
    arms: list[dict[str, Any]]
    """One dictionary per arm: methods, seeds, measurements and verdict."""
    teachers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name, metrics and size of each teacher with a name in the recipe, by these names."""
    path: Path | None = field(default=None, compare=False)
    """Comparison directory; no part of `comparison.json`."""

    @classmethod
    def load(cls, path: "str | Path | Comparison") -> "Comparison":
        """Read the comparison of a directory.

        Args:
            path: Comparison directory, written by `understudy compare` or `demo`.

        Raises:
            RunError: The directory is missing, holds no finished comparison, or one that is damaged
                or from another version of Understudy.
        """
        folder = Path(path)
        advice = "a directory written by 'understudy compare' or 'demo'"
        refuse_without(folder / FILE, "is no finished comparison", advice)
        content, keys = read_comparison(folder), {f.name for f in fields(cls)} - {"path"}
        return cls(**{key: content[key] for key in keys & content.keys()}, path=folder)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `comparison.json`."""
        content = asdict(self)
        del content["path"]
        return content

    def runs(self, arm: str) -> list[Run]:
        """Return the finished runs of an arm, one per seed.

        Args:
            arm: Name of the arm, such as `control` or `kd`.

        Raises:
            NameNotFound: There is no such arm.
            RunError: The comparison has no directory.
        """
        by_name = {row["name"]: row for row in self.arms}
        if arm not in by_name:
            raise NameNotFound("arm", arm, by_name)
        return [Run(Path(self) / path) for path in by_name[arm]["runs"]]

    @property
    def best(self) -> Run | None:
        """The first finished run of the method that is best on average; None without one."""
        means = {
            arm["name"]: mean(values)
            for arm in self.arms
            if arm["verdict"] is not None
            and arm["runs"]
            and len(values := known_values(arm, self.metric)) == len(arm["runs"])
        }
        name = max(means, key=lambda arm: means[arm], default=None)
        return None if name is None else self.runs(name)[0]

    @property
    def failed(self) -> dict[str, str]:
        """Run, such as `kd seed 1` → why it ended before it was finished."""
        return {
            f"{arm['name']} seed {seed}": reason
            for arm in self.arms
            for seed, reason in arm.get("failed", {}).items()
        }

    def table(self) -> str:
        """Return the results as a Markdown table, which also reads well as plain text.

        Columns: arm, mean ± standard deviation of the metric over the seeds, difference from the
        control with its 95 % interval, share of the gap to the teacher that is closed, verdict. The
        verdict corrects for the number of methods (Holm), so that it may be `no gain` where the
        interval of one method alone excludes 0.
        """
        header, *rows = self.cells()
        named = [[plain_table.escaped(name), *cells] for name, *cells in rows]
        return plain_table.markdown([header, *named])

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row per arm and seed.

        Columns: `arm`, `seed`, every metric and measure of fidelity, `seconds` and `memory_mb`.
        An arm that diverged has rows for the seeds before, one that failed for those that did not.

        Raises:
            UnderstudyError: pandas is not installed.
        """
        return plain_table.frame(list(self._records()))

    def __fspath__(self) -> str:
        if self.path is None:
            raise RunError("This comparison was not read from a directory: give the directory.")
        return str(self.path)

    def __repr__(self) -> str:
        names = ", ".join(row["name"] for row in self.arms)
        return f"<Comparison {self.name!r} by {self.metric}: {names}>"

    def _repr_html_(self) -> str:
        return plain_table.html(self.cells(), caption=self.name)

    def cells(self) -> list[list[str]]:
        """Return the cells of `table` as text, the header first."""
        digits = 4 if self.metric in UNITLESS else 2
        header = ["arm", self.metric, "difference [95 %]", "gap closed", "verdict"]
        teachers = {f"teacher {name}": teacher for name, teacher in self.teachers.items()}
        teachers = teachers or {"teacher": self.teacher or {}}
        rows = [
            [name, f"{reached:.{digits}f}", "", "", ""]
            for name, teacher in teachers.items()
            if (reached := (teacher.get("metrics") or {}).get(self.metric)) is not None
        ]
        for arm in self.arms:
            verdict = arm["verdict"]
            values: Any = values_of(arm, self.metric)
            rows.append(
                [
                    arm["name"],
                    plain_table.spread(values, digits),
                    plain_table.difference(verdict, digits),
                    plain_table.percent((verdict or {}).get("gap_closed")),
                    (verdict or {}).get("word", ""),
                ]
            )
        return [header, *rows]

    def _records(self) -> Iterator[dict[str, Any]]:
        for arm in self.arms:
            measured = {**arm["metrics"], **(arm["fidelity"] or {})}
            measured |= {key: arm["cost"][key] for key in ("seconds", "memory_mb")}
            for row, path in enumerate(arm["runs"]):
                values = {key: by_seed[row] for key, by_seed in measured.items()}
                # Of an arm that failed, any seed may be missing.
                yield {"arm": arm["name"], "seed": seed_of(path), **values}
