"""Teacher and control of a trained student: what stands beside it on the same pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from understudy.comparison.arms import CONTROL
from understudy.comparison.result import FILE as COMPARISON
from understudy.comparison.result import Comparison
from understudy.config.run_weights import run_of
from understudy.deployment.exported_folder import FILE as EXPORTED
from understudy.deployment.prediction.predictor import Predictor, load
from understudy.deployment.run_companions import control_of, teachers_of
from understudy.errors import NetworkError, RunError, UnderstudyError
from understudy.experiment.run_directory import Run
from understudy.experiment.student_file.preprocess import Preprocess, ended_by
from understudy.models.base import Wrapped
from understudy.models.network import Network


@final
@dataclass(frozen=True)
class Companion:
    """A network that predicts the same pictures as others.

    Attributes:
        role: What it is to the others.
        name: How it is called beside them.
        predictor: The network; None if it cannot be loaded.
        problem: Why it cannot be loaded; empty if it can.
    """

    role: Literal["teacher", "control", "student"]
    name: str
    predictor: Predictor | None
    problem: str = ""


def companions(
    path: str | Path, *, trust: bool = False, device: str | None = None
) -> list[Companion]:
    """Return teacher, control and student of a run, or teacher and all arms of a comparison.

    The control of a run is the one of the same seed in the comparison it belongs to. What cannot be
    loaded beside the student is there with the reason.

    Args:
        path: Run directory, its folder `best`, a file of weights or an exported folder in one; or a
            comparison directory, of which the first seed of each arm is taken.
        trust: Execute the Python files that the runs name for their networks.
        device: As for `load`.

    Raises:
        RunError: There is no finished run.
        UnderstudyError: The student itself cannot be loaded.
    """
    folder = Path(path)
    if (folder / COMPARISON).is_file():
        compared = Comparison.load(folder)
        runs = {arm["name"]: compared.runs(arm["name"])[:1] for arm in compared.arms}
        students = {name: run.path for name, (run, *_) in runs.items() if name != CONTROL}
        control = next((run.path for run in runs.get(CONTROL, ())), None)
        if not students:
            raise RunError(f"{folder} has no finished student beside its control.")
    else:
        run_folder = _training_run(folder)
        students = {_name_of(run_folder): folder}
        control = control_of(Run(run_folder))
    first = _training_run(next(iter(students.values())))
    return [
        *_teachers(first, trust=trust, device=device),
        *_control(control, students, trust=trust, device=device),
        *(
            Companion("student", name, load(place, trust=trust, device=device))
            for name, place in students.items()
        ),
    ]


def _training_run(student: Path) -> Path:
    """Return the directory of the run that trained a student, or from which one was exported."""
    folder = student if student.is_dir() else student.parent
    exported = (folder / EXPORTED).is_file()
    if run := run_of(str(folder.parent if exported else student)):
        return run.resolve()
    raise RunError(
        f"{student} belongs to no run, whose recipe would name the teacher: name the "
        "directory that `understudy distill` or `compare` wrote, or leave --beside out."
    )


def _name_of(run: Path) -> str:
    """Return the arm of a run of a comparison; otherwise the name of the directory."""
    return run.parent.name if (run.parent.parent / CONTROL).is_dir() else run.name


def _control(
    folder: Path | None, students: dict[str, Path], *, trust: bool, device: str | None
) -> Iterator[Companion]:
    """Yield the control, or why there is none; nothing if the student itself is one."""
    if any(_training_run(place).parent.name == CONTROL for place in students.values()):
        return
    if folder is None:
        problem = "There is no control: the run is in no comparison, or it has not begun."
        yield Companion("control", CONTROL, None, problem)
        return
    try:
        predictor = load(_short(folder), trust=trust, device=device)
    except UnderstudyError as error:
        yield Companion("control", CONTROL, None, str(error))
    else:
        yield Companion("control", CONTROL, predictor)


def _short(path: Path) -> Path:
    """Return a path as seen from the current folder, if it lies in it."""
    current = Path.cwd()
    return path.relative_to(current) if path.is_relative_to(current) else path


def _teachers(folder: Path, *, trust: bool, device: str | None) -> Iterator[Companion]:
    """Yield the teachers that the recipe of a run names."""
    run = Run(folder)
    try:
        teachers = teachers_of(run, trust=trust)
        if not teachers:
            raise NetworkError("The recipe names no teacher.")
        for name, teacher in teachers.items():
            yield Companion("teacher", name, _predictor(run, teacher, device=device))
    except UnderstudyError as error:
        yield Companion("teacher", "teacher", None, str(error))


def _predictor(run: Run, teacher: Wrapped, *, device: str | None) -> Predictor:
    """Return the predictions of a teacher, for pictures prepared as those of its student."""
    config = run.config
    steps = config.preprocessing
    if isinstance(teacher, Network):
        steps = ended_by(steps, teacher.input)
    return Predictor(
        teacher.plain(),
        Preprocess(steps),
        task=config.task,
        classes=teacher.class_names,
        source=teacher.name,
        threshold=config.threshold,
        has_classifier=teacher.num_classes is not None,
        device=device,
    )
