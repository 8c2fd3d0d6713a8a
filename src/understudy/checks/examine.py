"""Examine a recipe before training: run its checks, the shortest first, in the time allowed."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

from understudy import checks, files
from understudy.checks import costs
from understudy.checks.examined import LONG_SECONDS, Examined
from understudy.checks.finding import Finding, Level
from understudy.config.json_form import Form
from understudy.config.recipe import Recipe
from understudy.distillation.device_names import find_device
from understudy.errors import UnderstudyError, memory_ran_out
from understudy.experiment.own_images import given
from understudy.experiment.run_directory import read_json
from understudy.functional import seeded
from understudy.training.threads import restored
from understudy.words import counted

FILE = "doctor.json"
"""File of an examination, in the directory of the run or the comparison that it precedes."""

_FINDING: Form = {"check": str, "level": str, "message": str, "fix": {str: object}, "advice": str}

_FORM: Form = {
    "findings": [_FINDING],
    "checks": [str],
    "not_run": {str: str},
    "seconds": float,
    "short": bool,
}
"""Form of `doctor.json`."""

_OF_ONE_TEACHER = ("reset_head", "teacher_accuracy", "teacher_features", "detector_accuracy")
"""Checks that look at one teacher, and are made for each of several by itself."""

_LEVELS: tuple[Level, ...] = ("error", "warning", "note")

_TIME_OVER = "seconds were over"
"""Why a check is not made for which no time is left."""

_NAMED = 3
"""Arms that a line names; of further ones it says how many there are."""

_PREVENTED = "an error prevents this"
"""Why a check is not made that needs images or networks which cannot be had."""


@dataclass(frozen=True)
class Examination:
    """Result of examining a recipe.

    Attributes:
        findings: Errors, then warnings, then notes.
        checks: Names of the checks that were made.
        not_run: Name of a check that was not made or did not end → the reason.
        seconds: Time of the examination.
        short: True if these were the checks of the short form.
    """

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    not_run: Mapping[str, str]
    seconds: float
    short: bool

    def of(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Errors, then warnings: all that is amiss."""
        return tuple(finding for finding in self.findings if finding.is_fault)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `doctor.json`."""
        content = asdict(self)
        for finding, written in zip(self.findings, content["findings"], strict=True):
            written["flags"] = finding.flags
        return content

    @classmethod
    def read(cls, folder: Path) -> "Examination | None":
        """Read the examination that preceded the run or comparison in a directory.

        Returns:
            The examination; None if there was none.

        Raises:
            RunError: The file is damaged.
        """
        content = read_json(folder / FILE, _FORM, optional=True, remedy="remove that file")
        if not content:
            return None
        findings = tuple(
            Finding(*(finding[key] for key in ("check", "level", "message", "fix", "advice")))
            for finding in content["findings"]
        )
        return cls(
            findings=findings,
            checks=tuple(content["checks"]),
            not_run=content["not_run"],
            seconds=content["seconds"],
            short=content["short"],
        )

    def write(self, folder: Path) -> None:
        """Write `doctor.json` to the directory of a run or a comparison."""
        files.write(folder / FILE, files.as_json(self.to_dict(), indent=1))

    @property
    def headline(self) -> str:
        """Return how many errors and warnings there are, as one line."""
        counts = {level: len(self.of(level)) for level in _LEVELS}
        parts = [counted(counts[level], level) for level in _LEVELS[:2] if counts[level]]
        made = f"{counted(len(self.checks), 'check')} in {self.seconds:.0f} s"
        not_made = f", {len(self.not_run)} not made" if self.not_run else ""
        return f"doctor: {', '.join(parts) or 'no warning'}, {made}{not_made}"

    def lines(self) -> Iterator[str]:
        """Yield the headline, one line for each finding, and those of checks not made."""
        yield self.headline
        yield from map(str, self.findings)
        yield from self.not_made()

    def not_made(self) -> Iterator[str]:
        """Yield one line, if any check was not made: which, why, and what makes it."""
        if not self.not_run:
            return
        parts = [f"{_of_arms(names)} ({reason})" for reason, names in self.reasons.items()]
        line = f"not examined: {'; '.join(parts)}"
        if self.short and any(_TIME_OVER in reason for reason in self.reasons):
            line += (
                ". `understudy doctor` with the same flags, and --method NAME in place of "
                f"--methods, takes up to {LONG_SECONDS:.0f} seconds for one method"
            )
        yield line

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why checks were not made → their names."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.not_run.items():
            reasons.setdefault(reason, []).append(name)
        return reasons


def doctor(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    short: bool = False,
    device: str | None = None,
    out: str | Path | None = None,
) -> Examination:
    """Examine a recipe before training; write nothing.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`.
        overrides: Keys of the recipe to replace, such as `{"training.epochs": 1}`; see
            `Recipe.load`.
        data: Images of a program, as for `train`.
        short: Make only the checks that the command line makes before every `distill` and
            `compare`, in at most 20 seconds on two cores; all checks take at most 60.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        out: Directory that the run will write, whose disk must have room for it; default: `runs`.

    Returns:
        The findings. A recipe that cannot be built is an error among them.

    Raises:
        RecipeError: The recipe is wrong, or there is no such device.

    Example:
        examination = understudy.doctor("fashion/demo", {"teacher.weights": "runs/teacher"})
        for finding in examination.findings:
            print(finding)
    """
    find_device(device)
    with given(Recipe.load(recipe, overrides), data) as loaded:
        folder = Path(out or "runs")
        return examine(Examined(loaded, short=short, device=device, out=folder))


def examine(examined: Examined, *others: Examined) -> Examination:
    """Run the checks of a recipe.

    The random state and the threads of this process are as before in the end.

    Args:
        examined: The recipe.
        others: Further arms of a comparison, which differ from it in their methods alone: of
            these, the checks that depend on methods are run.
    """
    began = time.monotonic()
    log = _Log()
    with restored(), seeded(examined.recipe.seed, find_device(examined.device)):
        log.examine(examined, checks.names())
        for other in others:
            log.examine(other, [name for name in checks.names() if checks.find(name).OF_METHODS])
        log.together([examined, *others])
    return Examination(
        findings=tuple(sorted(log.findings, key=lambda f: _LEVELS.index(f.level))),
        checks=tuple(log.made),
        not_run=log.not_run,
        seconds=time.monotonic() - began,
        short=examined.short,
    )


@final
class _Log:
    """Collects what the checks of one or several recipes found."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.made: dict[str, None] = {}
        self.not_run: dict[str, str] = {}
        self._failures: set[str] = set()

    def examine(self, examined: Examined, names: Sequence[str]) -> None:
        """Build what a recipe names, then run some checks, the shortest first."""
        if self._try("images", examined, lambda: examined.images):
            self._try("networks", examined, lambda: examined.experiment)
        for name in sorted(names, key=lambda name: (checks.find(name).SECONDS, name)):
            if examined.short and not checks.find(name).SHORT:
                continue
            if name in _OF_ONE_TEACHER and examined.recipe.teachers:
                self._check_each_teacher(name, examined)
            else:
                self._make(name, examined, partial(self._check, name, examined))
        # Also what was said while checks computed what they need.
        said = (Finding("messages", "warning", sentence) for sentence in examined.warnings)
        self._add(examined, said)

    def together(self, arms: Sequence[Examined]) -> None:
        """Predict what all runs of a comparison or a search cost, by the arms that were tried."""
        first, tried = arms[0], [arm for arm in arms if arm.tried]
        if (plan := first.plan) and tried:
            costs_of = partial(costs.of_all, tried, plan, count=len(arms))
            self._try(costs.CHECK, first, lambda: self._add(first, costs_of()))

    def _check_each_teacher(self, name: str, examined: Examined) -> None:
        """Make a check for every teacher, as if the recipe had no other."""
        for teacher in examined.recipe.teachers:

            def check(teacher: str = teacher) -> None:
                findings = checks.find(name).check(examined.alone(teacher))
                self._add(examined.alone(teacher), (_named(x, teacher) for x in findings))

            self._make(name, examined, check, of=f"teacher {teacher}")

    def _make(
        self, name: str, examined: Examined, step: Callable[[], object], *, of: str = ""
    ) -> None:
        """Make a check, of one teacher among several or of all, if there is time for it."""
        label = " ".join(filter(None, [examined.name, of, name]))
        if examined.seconds_left() <= 0:
            self.not_run[label] = f"the {examined.seconds:.0f} {_TIME_OVER}"
        elif self._try(label, examined, step):
            self.made[name] = None

    def _check(self, name: str, examined: Examined) -> None:
        self._add(examined, checks.find(name).check(examined))

    def _add(self, examined: Examined, findings: Iterable[Finding]) -> None:
        """Keep findings; those of a further arm begin with its name, unless they are known."""
        known = {str(finding) for finding in self.findings}
        for finding in findings:
            message = f"{examined.name}: {finding.message}" if examined.name else finding.message
            named = replace(finding, message=message)
            if not {str(finding), str(named)} & known:
                self.findings.append(named)

    def _try(self, name: str, examined: Examined, step: Callable[[], object]) -> bool:
        """Make a step; return False if it could not be made, and note why."""
        try:
            step()
        except UnderstudyError as error:
            self._fail(name, examined, error)
        except Exception as error:
            self.not_run[name] = _words_of(error)
        else:
            return True
        return False

    def _fail(self, name: str, examined: Examined, error: UnderstudyError) -> None:
        """Note an error: as a finding where it would end the run too, and once."""
        sentence = str(error)
        if sentence in self._failures:
            self.not_run[name] = _PREVENTED
        elif error in examined.failures:
            self._failures.add(sentence)
            self._add(examined, [Finding(name.rpartition(" ")[2], "error", sentence)])
        else:
            self.not_run[name] = sentence


def _of_arms(labels: Sequence[str]) -> str:
    """Return checks in words, those of further arms behind the names of the arms.

    >>> _of_arms(["loading", "pefd losses", "pefd costs", "nd losses", "nd costs"])
    'loading; of pefd and nd: losses and costs'
    """
    by_arm: dict[str, list[str]] = {}
    for label in labels:
        arm, _, check = label.rpartition(" ")
        by_arm.setdefault(arm, []).append(check)
    parts = [", ".join(by_arm.pop(""))] if "" in by_arm else []
    arms_of: dict[str, list[str]] = {}
    for arm, names in by_arm.items():
        arms_of.setdefault(_joined(names), []).append(arm)
    for names_of, arms in arms_of.items():
        others = len(arms) - _NAMED
        several = [*arms[:_NAMED], f"{others} more"] if others > 1 else arms
        parts.append(f"of {_joined(several)}: {names_of}")
    return "; ".join(parts)


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _named(finding: Finding, teacher: str) -> Finding:
    """Return a finding on one of several teachers, with its keys where they are in the recipe."""

    def renamed(text: str) -> str:
        keys = re.sub(r"(?<![\w.])teacher\.(?=[a-z])", f"teachers.{teacher}.", text)
        return re.sub(r"(?<![\w.])(bank|methods)\.(?=[a-z])", rf"teachers.{teacher}.\1.", keys)

    fix = {renamed(key): value for key, value in finding.fix.items()}
    message, advice = renamed(finding.message), renamed(finding.advice)
    return replace(finding, message=message, advice=advice, fix=fix)


def _words_of(error: Exception) -> str:
    """Return why a check was not made: no memory, or a bug that other checks do not have."""
    if memory_ran_out(error):
        return "memory ran out at once for a whole batch, which training splits"
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return f"internal error, {words}; please report it"
