"""The result of a search: the content of `tuning.json`, and its table. Loads no torch."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal, final

from understudy.comparison.result import FILE as COMPARISON
from understudy.comparison.result import Comparison, known_values
from understudy.comparison.statistics import verdict
from understudy.config.json_form import Form
from understudy.experiment import plain_table
from understudy.experiment.progress import number_text
from understudy.experiment.run_directory import read_json, refuse_without
from understudy.experiment.run_time import in_words
from understudy.words import counted

FILE = "tuning.json"
"""File of the directory of a search that holds the result."""

JUDGED = "judged"
"""Folder of the comparison on fresh seeds, in the directory of a search."""

TUNED = "tuned.yaml"
"""File of the directory of a search that holds the recipe with the methods of the winner."""

_WORDS = {
    "gain": "It is ahead, beyond chance, of",
    "no gain": "No difference beyond chance from",
    "loss": "It is behind, beyond chance,",
    "too few seeds": "Too few seeds for a verdict against",
}
"""Word of a verdict → the winner beside the published values."""

_TRIAL: Form = {
    "number": int,
    "candidate": str,
    "values": {str: float},
    "published": bool,
    "failed": str,
    "text": str,
    "scores": {str: (float, None)},
    "epochs": int,
    "seconds": float,
}
_TUNING: Form = {
    "name": str,
    "metric": str,
    "recipe_digest": str,
    "machine": str,
    "created": str,
    "validation": str,
    "judged_on": str,
    "rungs": [int],
    "ranges": {str: [str]},
    "trials": [_TRIAL],
    "winner": (int, None),
    "methods": {str: {str: object}},
    "seeds": [int],
}


@final
@dataclass(frozen=True, repr=False)
class Tuning:
    """A search for a method and its hyper-parameters, and its verdict on fresh seeds.

    `tune` returns it and `Tuning.load` reads it from a directory. It stands for its directory
    wherever a path is expected: `understudy.report(tuning)`.
    """

    name: str
    """Name of the recipe."""
    metric: str
    """Metric that ranks students."""
    recipe_digest: str
    """Digest of the recipe."""
    machine: str
    """Processor and GPU."""
    created: str
    """Time of writing, in UTC."""
    validation: str
    """Images that choose, in words."""
    judged_on: Literal["test", "validation"]
    """Split that judges the winner: `validation` where the data have no test images."""
    rungs: list[int]
    """Epochs at which trials are compared; the last is a whole run."""
    ranges: dict[str, list[str]]
    """Candidate → ranges of the numbers that are searched, in words."""
    trials: list[dict[str, Any]]
    """One dictionary per trial: candidate, values, score at each rung, why it failed."""
    winner: int | None
    """Number of the best trial; None until the search is over."""
    methods: dict[str, dict[str, Any]]
    """Methods of the winner, as in a recipe; empty until the search is over."""
    seeds: list[int]
    """Seeds of the comparison that judges the winner."""
    path: Path | None = field(default=None, compare=False)
    """Directory of the search; no part of `tuning.json`."""

    @classmethod
    def load(cls, path: "str | Path | Tuning") -> "Tuning":
        """Read the search of a directory.

        Args:
            path: Directory, written by `understudy tune`.

        Raises:
            RunError: The directory is missing, holds no search, or one that is damaged or from
                another version of Understudy.
        """
        folder = Path(path)
        refuse_without(folder / FILE, "is no search", "a directory written by 'understudy tune'")
        content = read_json(folder / FILE, _TUNING, remedy="search again in another --out")
        return cls(**{key: content[key] for key in _TUNING}, path=folder)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `tuning.json`."""
        content = asdict(self)
        del content["path"]
        return content

    @property
    def comparison(self) -> Comparison | None:
        """The winner, the published values and the control on fresh seeds; None until it is there.

        Raises:
            RunError: It is damaged.
        """
        folder = self.path / JUDGED if self.path else None
        judged = folder is not None and (folder / COMPARISON).is_file()
        return Comparison.load(folder) if folder and judged else None

    @property
    def flags(self) -> str:
        """What makes any command use the winner, as flags; empty until the search is over."""
        return flags_of(self.methods)

    def ranked(self) -> list[dict[str, Any]]:
        """Return the trials, those that came furthest first, and of these the best first."""
        return sorted(
            self.trials,
            key=lambda trial: (
                bool(trial["failed"]),
                *(-(self._score(trial, epochs) or 0.0) for epochs in self.rungs[::-1]),
            ),
        )

    def cells(self) -> list[list[str]]:
        """Return the table of the trials as text, the header first, the best trial next."""
        header = ["trial", "what", *(f"epoch {epochs}" for epochs in self.rungs), "time"]
        rows = [
            [
                f"{trial['number'] + 1}{' (chosen)' * (trial['number'] == self.winner)}",
                trial["text"] if not trial["failed"] else f"{trial['text']}: {trial['failed']}",
                *(number_text(self._score(trial, epochs)) for epochs in self.rungs),
                f"{trial['seconds']:.0f} s",
            ]
            for trial in self.ranked()
        ]
        return [header, *rows]

    def table(self) -> str:
        """Return the trials as a Markdown table."""
        return plain_table.markdown(self.cells())

    def facts(self) -> list[str]:
        """Return what is to be known of the search, in sentences."""
        failed = sum(bool(trial["failed"]) for trial in self.trials)
        whole = sum(self._score(trial, self.rungs[-1]) is not None for trial in self.trials)
        trained = f"{counted(len(self.trials), 'trial')}, {whole} trained to the end"
        return [
            f"{trained}{f' and {failed} failed' if failed else ''}, in "
            f"{in_words(sum(trial['seconds'] for trial in self.trials))} on {self.machine}.",
            f"Chosen by {self.metric} on {self.validation}, of validation images; {self._apart}.",
            *(f"{name}: {'; '.join(ranges)}." for name, ranges in self.ranges.items()),
        ]

    @property
    def _apart(self) -> str:
        """Whether other images judge the winner than those that chose it, in words."""
        if self.judged_on == "test":
            return "no trial was chosen by a test image"
        return (
            "without test images, the same ones judge the winner, whose lead is too large: part "
            "the images into folders train and test"
        )

    def headline(self) -> str:
        """Return what came of the search, in a sentence."""
        if self.winner is None:
            begun = counted(len(self.trials), "trial")
            return f"The search has {begun} so far, and has not chosen any."
        chosen = self.trials[self.winner]
        if chosen["published"]:
            return f"No trial was better on validation images than {chosen['text']}."
        comparison = self.comparison
        if comparison is None:
            return f"The search chose {chosen['text']}; fresh seeds have not judged it yet."
        return f"The search chose {chosen['text']}. {self._judged(comparison)}"

    def markdown(self) -> str:
        """Return headline, facts and tables in Markdown."""
        parts = [f"# {self.name}", self.headline(), "\n".join(f"- {x}" for x in self.facts())]
        if comparison := self.comparison:
            seeds = ", ".join(map(str, self.seeds))
            title = f"## On fresh seeds ({seeds}), {self.judged_on} images"
            parts += [title, comparison.table()]
        return "\n\n".join([*parts, "## Trials, on validation images", self.table()]) + "\n"

    @property
    def _images(self) -> str:
        """The images that judge the winner, in words."""
        chose = " that chose it" if self.judged_on == "validation" else ""
        return f"the {self.judged_on} images{chose}"

    def _judged(self, comparison: Comparison) -> str:
        """Return the difference between the winner and the published values on fresh seeds."""
        scores = {arm["name"]: known_values(arm, self.metric) for arm in comparison.arms}
        tuned, published, control = (
            next((x for name, x in scores.items() if name.startswith(word)), [])
            for word in ("tuned", "published", "control")
        )
        if not (len(tuned) == len(published) == len(self.seeds)) or not control:
            return "Its runs on fresh seeds are not complete."
        judged = verdict(tuned, published, None, name="tuned", metric=self.metric)
        apart = plain_table.difference(asdict(judged), 2)
        return (
            f"On {counted(len(self.seeds), 'fresh seed')} and {self._images} it "
            f"has {number_text(mean(tuned))} {self.metric}, the published values "
            f"{number_text(mean(published))}, the control {number_text(mean(control))}. "
            f"{_WORDS[judged.word]} the published values: {apart}, over the seeds alone."
        )

    @staticmethod
    def _score(trial: Mapping[str, Any], epochs: int) -> float | None:
        score: float | None = trial["scores"].get(str(epochs))
        return score

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<Tuning {self.name!r} by {self.metric}: {self.headline()}>"


def flags_of(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return methods as the flags that `distill` takes."""
    words = ["--method", *methods]
    for label, entry in methods.items():
        for key, value in entry.items():
            text = f"{value:g}" if isinstance(value, float) else str(value)
            words += [f"--methods.{label}.{key}", shlex.quote(text)]
    return " ".join(words) if methods else ""
