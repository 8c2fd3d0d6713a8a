"""Several comparisons in one directory, such as one for each student. Loads no torch."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from understudy import files
from understudy.comparison.result import FILE as COMPARISON
from understudy.comparison.result import Comparison
from understudy.config.json_form import Form
from understudy.errors import RunError
from understudy.experiment.run_directory import read_json, refuse_without

_Kind = TypeVar("_Kind", bound="SeveralComparisons")


@dataclass(frozen=True, repr=False)
class SeveralComparisons(ABC):
    """Comparisons that belong together, one in each folder of a directory.

    It stands for its directory wherever a path is expected: `understudy.report(comparisons)`.
    """

    name: str
    """Name of the recipe."""
    metric: str
    """Metric that the verdicts are about."""
    folders: dict[str, str]
    """Part, such as a student → the folder of its comparison in the directory."""
    path: Path
    """Directory of all comparisons; no part of the file."""

    FILE: ClassVar[str]
    """File of the directory that lists them."""
    KEY: ClassVar[str]
    """Key of the file, and what one comparison stands for, in the plural, such as `students`."""
    COMMAND: ClassVar[str]
    """Command that writes such a directory."""

    @classmethod
    def load(cls: type[_Kind], path: "str | Path | SeveralComparisons") -> _Kind:
        """Read the comparisons of a directory.

        Args:
            path: Directory, written by the command `COMMAND`.

        Raises:
            RunError: The directory is missing, holds no such comparisons, or they are damaged.
        """
        folder = Path(path)
        missing = f"are no comparisons of several {cls.KEY}"
        refuse_without(folder / cls.FILE, missing, f"a directory written by '{cls.COMMAND}'")
        form: Form = {"name": str, "metric": str, cls.KEY: {str: str}}
        content = read_json(folder / cls.FILE, form, remedy="compare again in another --out")
        return cls(content["name"], content["metric"], content[cls.KEY], folder)

    def called(self, part: str) -> str:
        """Return what one part is called in a sentence."""
        return part

    def write(self) -> None:
        """Write the file of the directory.

        Raises:
            RunError: It cannot be written.
        """
        content = {"name": self.name, "metric": self.metric, self.KEY: self.folders}
        files.write(self.path / self.FILE, files.as_json(content, indent=1))

    @classmethod
    def check_place(cls, root: Path, folders: Mapping[str, str], *, resume: bool) -> None:
        """Refuse a directory of something else, or to continue what never began.

        Args:
            root: Directory.
            folders: What is to be compared in it.
            resume: Refuse if nothing of it began.

        Raises:
            RunError: As above.
        """
        files.refuse_address(root, "--out")
        if (root / COMPARISON).is_file():
            raise RunError(
                f"{root} holds a single comparison; choose another --out for several {cls.KEY}."
            )
        if (root / cls.FILE).is_file() and (others := set(cls.load(root).folders) - set(folders)):
            raise RunError(
                f"{root} holds the comparisons of {', '.join(sorted(others))} too: name these "
                f"{cls.KEY} as well, or choose another --out."
            )
        begun = any(any((root / f).glob("*/seed*/recipe.yaml")) for f in folders.values())
        if resume and not begun:
            raise RunError(f"There is no comparison in {root} to continue; start without --resume.")

    def comparison(self, part: str) -> Comparison:
        """Return the comparison of one part, such as a student.

        Raises:
            RunError: It is missing or damaged.
        """
        return Comparison.load(self.path / self.folders[part])

    @property
    def failed(self) -> dict[str, str]:
        """Run, such as `resnet8 kd seed 1` → why it ended before it was finished."""
        return {
            f"{part} {run}": why
            for part in self.folders
            for run, why in self.comparison(part).failed.items()
        }

    def table(self) -> str:
        """Return the tables of all comparisons in Markdown, each under its name."""
        return "\n\n".join(
            f"**{part}**\n\n{self.comparison(part).table()}" for part in self.folders
        )

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} by {self.metric}: {', '.join(self.folders)}>"
