"""The result of a reproduction: the content of `reproduction.json`, and its table. No torch."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from understudy.config.json_form import Form
from understudy.errors import RunError
from understudy.experiment import plain_table
from understudy.experiment.run_directory import read_json, refuse_without

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = "reproduction.json"
"""File of the directory of a table that holds the result."""

_PUBLISHED: Form = {
    "text": str,
    "figure": (float, None),
    "deviation": (float, None),
    "epoch": str,
    "runs": str,
    "teacher": str,
    "source": str,
    "note": str,
}
_ROW: Form = {
    "name": str,
    "recipe_digest": str,
    "published": _PUBLISHED,
    "protocol": str,
    "seeds": [int],
    "runs": [str],
    "last": [(float, None)],
    "best": [(float, None)],
    "epoch": str,
    "scores": [float],
    "teacher": (float, None),
    "mark": str,
    "reason": str,
    "deviation": (float, None),
    "differences": [str],
    "state": str,
    "predicted_seconds": (float, None),
}
_REPRODUCTION: Form = {
    "table": str,
    "metric": str,
    "epochs_scale": float,
    "overrides": {str: object},
    "seeds": [int],
    "machine": str,
    "created": str,
    "seconds": float,
    "rows": [_ROW],
    "teachers": [{"name": str, "recipe_digest": str, "published": str, "score": (float, None)}],
}


@dataclass(frozen=True, repr=False)
class Reproduction:
    """Rows of a published table beside what came of training them.

    `reproduce` returns it and `Reproduction.load` reads it from a directory. A notebook shows it as
    a table. It stands for its directory wherever a path is expected:
    `understudy.report(reproduction)`.
    """

    table: str
    """Name of the table, or path of its file."""
    metric: str
    """Metric of the figures."""
    epochs_scale: float
    """Share of the published epochs that were trained; figures of less than 1 reproduce nothing."""
    overrides: dict[str, Any]
    """Keys of the recipes that were replaced."""
    seeds: list[int]
    """Seeds that were asked for."""
    machine: str
    """Processor and GPU."""
    created: str
    """Time of writing, in UTC."""
    seconds: float
    """Time of all finished runs together, teachers included, however often interrupted."""
    rows: list[dict[str, Any]]
    """One dictionary per row: published figure and protocol, ours, and what is to be said of it."""
    teachers: list[dict[str, Any]]
    """One dictionary per teacher that was trained: name, digest, published figure and ours."""
    path: Path | None = field(default=None, compare=False)
    """Directory of the table; no part of `reproduction.json`."""

    @classmethod
    def load(cls, path: "str | Path | Reproduction") -> "Reproduction":
        """Read the reproduction of a directory.

        Args:
            path: Directory of a table, written by `understudy reproduce`.

        Raises:
            RunError: The directory is missing, holds no reproduction, or one that is damaged or
                from another version of Understudy.
        """
        folder = Path(path)
        advice = "the directory of a table, written by 'understudy reproduce'"
        refuse_without(folder / FILE, "is no reproduction", advice)
        remedy = "reproduce again in another --out"
        content = read_json(folder / FILE, _REPRODUCTION, remedy=remedy)
        return cls(**{key: content[key] for key in _REPRODUCTION}, path=folder)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `reproduction.json`."""
        content = asdict(self)
        del content["path"]
        return content

    def cells(self) -> list[list[str]]:
        """Return the table as text, the header first.

        Columns: row, published figure, its protocol, ours as mean ± standard deviation over n
        seeds, the difference, what is to be said of it, and how our protocol differs.
        """
        header = ["row", f"published {self.metric}", "published protocol", "ours"]
        header += ["difference", "2 sd", "ours differs by"]
        return [header, *(_cells(row) for row in self.rows)]

    def markdown(self) -> str:
        """Return title, facts and table in Markdown."""
        facts = [f"- {line}" for line in self.facts()]
        return "\n\n".join([f"# {self.table}", "\n".join(facts), self.to_table()]) + "\n"

    def to_table(self) -> str:
        """Return the rows as a Markdown table, which also reads well as plain text."""
        return plain_table.markdown(self.cells())

    def facts(self) -> list[str]:
        """Return what holds for all rows, a sentence each."""
        return list(self._facts())

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row per row of the table and seed.

        Columns: `row`, `seed`, `published`, `last` and `best`: our figures of the last epoch, and
        of the best one on the test images.

        Raises:
            UnderstudyError: pandas is not installed.
        """
        return plain_table.frame(list(self._records()))

    def __fspath__(self) -> str:
        if self.path is None:
            raise RunError("This reproduction was not read from a directory: give the directory.")
        return str(self.path)

    def __repr__(self) -> str:
        count = sum(bool(row["scores"]) for row in self.rows)
        return f"<Reproduction {self.table!r}: {count} of {len(self.rows)} rows>"

    def _repr_html_(self) -> str:
        return plain_table.html(self.cells(), caption=self.table)

    def _facts(self) -> Iterator[str]:
        if self.epochs_scale != 1:
            yield (
                f"Every training has {100 * self.epochs_scale:g} % of its published epochs "
                "(--epochs-scale): no row is a reproduction."
            )
        if self.overrides:
            pairs = ", ".join(f"{key}: {value}" for key, value in self.overrides.items())
            yield f"Keys given: {pairs}."
        for teacher in self.teachers:
            published = teacher["published"] or "not published"
            ours = "not trained yet" if teacher["score"] is None else f"{teacher['score']:.2f}"
            yield f"Teacher {teacher['name']}: {ours} (published: {published})."
        yield f"Seeds: {', '.join(map(str, self.seeds))}. Machine: {self.machine}."

    def _records(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            for place, seed in enumerate(row["seeds"]):
                yield {
                    "row": row["name"],
                    "seed": seed,
                    "published": row["published"]["figure"],
                    "last": row["last"][place],
                    "best": row["best"][place],
                }


def _cells(row: dict[str, Any]) -> list[str]:
    scores, figure = row["scores"], row["published"]["figure"]
    ours = plain_table.spread(scores, 2)
    if scores:
        ours += f" ({row['epoch']} epoch, n = {len(scores)})"
    distance = mean(scores) - figure if scores and figure is not None else None
    mark = row["mark"] if row["mark"] != "cannot be said" else f"cannot be said: {row['reason']}"
    return [
        row["name"],
        row["published"]["text"] or "–",
        row["protocol"],
        ours or row["state"],
        "" if distance is None else plain_table.signed(distance),
        mark,
        "; ".join(row["differences"]) or "nothing",
    ]
