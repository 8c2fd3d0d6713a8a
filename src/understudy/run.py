"""Execute a recipe, and read back what was executed.

A run directory holds

    recipe.yaml           the recipe, every key written out
    environment.json      machine, versions, class names, images left out, digests of the data
    metrics.jsonl         one line per epoch: losses, metrics and fidelity
    last/state.ckpt       everything needed to continue exactly; previous.ckpt is the one before
    best/student.safetensors    the plain student of the epoch with the best headline metric
    student.safetensors   the plain student of the last epoch; loads without Understudy
    evaluation.json       metrics, per-class accuracy, fidelity and cost of that student
    diagnostics.json      what the pictures are drawn from; single-label runs need a teacher for it
    diverged.txt          instead of the three above, if a loss became NaN or infinite: which
    profile.json          written by `--profile`: a trace of some steps, in Chrome's format
    report.html           written by `understudy report`

Every file is replaced in one step, so a crash leaves the old or the new one, never half of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy import build, tasks
from understudy import recipe as recipes
from understudy.build import Images
from understudy.devices import accelerator
from understudy.errors import Diverged, RecipeError, RunError
from understudy.evaluation import collect, comparable
from understudy.execution import Execution, read_environment, read_epochs
from understudy.recipe import Recipe
from understudy.tasks import Evaluation
from understudy.watcher import Watcher


@dataclass(frozen=True)
class Run:
    """An executed recipe on disk."""

    path: Path

    @property
    def recipe(self) -> Recipe:
        """The recipe that was executed."""
        if not self.begun:
            raise RunError(f"{self.path} is no run directory: it has no recipe.yaml.")
        return recipes.load(self.path / "recipe.yaml")

    @property
    def begun(self) -> bool:
        """Whether there is anything in the directory to continue or to read."""
        return (self.path / "recipe.yaml").is_file()

    @property
    def diverged(self) -> str:
        """Why training broke down; empty if it did not."""
        file = self.path / "diverged.txt"
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    @property
    def finished(self) -> bool:
        """Whether training reached its last epoch."""
        return (self.path / "evaluation.json").is_file()

    @property
    def evaluation(self) -> dict[str, Any]:
        """Metrics, per-class accuracy, fidelity and cost of the trained student."""
        if not self.finished:
            raise RunError(f"{self.path} is not finished; continue it with --resume.")
        content: dict[str, Any] = json.loads((self.path / "evaluation.json").read_text())
        return content

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions, class names, digests and the seconds that `prepare` took."""
        return read_environment(self.path)

    @property
    def seconds(self) -> float:
        """What `prepare` and all epochs took, whatever interruptions lay between."""
        return float(self.environment["prepare_seconds"] + sum(e["seconds"] for e in self.epochs()))

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_epochs(self.path)


def distill(recipe: Recipe, **options: Any) -> Run:
    """Train a student by the methods of a recipe; options as for `train`.

    Raises:
        RecipeError: The recipe names no method or no teacher.
    """
    if not recipe.methods or not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError(
            "Distilling needs a teacher and a method: give --teacher.name and --method, "
            "or use `understudy train` for a control."
        )
    return train(recipe, **options)


def train(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    watcher: Watcher | None = None,
    profile: bool = False,
    images: Images | None = None,
) -> Run:
    """Execute a recipe.

    Args:
        recipe: What to train.
        out: Run directory; default `runs/<recipe.name>`.
        resume: Continue an interrupted run exactly where it was saved.
        device: `cpu`, or None for the best device there is.
        watcher: Told about progress.
        profile: Measure where the time of some steps goes: a table for the watcher, and a trace in
            `profile.json`. It changes nothing of what is trained.
        images: Training and test images of the recipe, if they are loaded already.

    Raises:
        RunError: The directory holds another run, nothing to resume, or the disk is full.
        Diverged: A loss became NaN or infinite, now or when it was last trained; the last good
            state is kept.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.
        OutOfMemory: A step does not fit into memory in any number of parts.
    """
    run = Run(Path(out) if out else Path("runs") / recipe.name)
    _claim(run, recipe, resume=resume)
    if resume and run.finished:
        if watcher:
            watcher.end(recipe.name, tasks.find(recipe.task).headline, run.evaluation)
        return run
    if run.diverged:
        raise Diverged(
            f"{run.path} ended so: {run.diverged} It would again; remove it to train anew."
        )
    Execution(
        run.path,
        recipe,
        resume=resume,
        device=device,
        watcher=watcher,
        profile=profile,
        images=images,
    ).finish()
    return run


def evaluate(
    run: str | Path, overrides: Mapping[str, Any] | None = None, *, device: str | None = None
) -> Evaluation:
    """Measure the trained student of a run, on its own test images or on others.

    Args:
        run: A run directory.
        overrides: Dotted keys of the recipe to replace, such as `data.root`.
        device: As for `train`.

    Raises:
        UnderstudyError: There is no student in the directory, or it was trained for other classes.
    """
    path = Path(run)
    recipe = recipes.parse(recipes.plain(Run(path).recipe), overrides)
    if not (path / "student.safetensors").is_file():
        raise RunError(f"{path} holds no student yet; continue it with --resume.")
    exam = build.examination(recipe, path / "student.safetensors")
    devices = accelerator(recipe.training, device, student=exam.student)
    outputs = [
        collect(network.to(devices.device), exam.test.once(augmented=False), devices, exam.task)
        for network in (exam.student, exam.teacher)
        if network is not None
    ]
    close = comparable(exam.task, exam.student, exam.teacher)
    return exam.task.evaluate(outputs[0], outputs[1] if close else None)


def _claim(run: Run, recipe: Recipe, *, resume: bool) -> None:
    """Refuse to mix two runs in one directory, and to continue what never began."""
    if not run.begun:
        if resume:
            raise RunError(f"There is no run in {run.path} to continue; start without --resume.")
        return
    if not resume:
        raise RunError(
            f"{run.path} already holds a run: continue it with --resume, or choose another --out."
        )
    if run.recipe.digest != recipe.digest:
        raise RunError(
            f"{run.path} was made by another recipe ({_difference(run.recipe, recipe)}); "
            "choose another --out."
        )


def _difference(old: Recipe, new: Recipe) -> str:
    before, after = recipes.flat(old), recipes.flat(new)
    return ", ".join(
        f"{key}: {before.get(key)} there, {after.get(key)} here"
        for key in before | after
        if before.get(key) != after.get(key) and key not in recipes.NOT_IN_DIGEST
    )
