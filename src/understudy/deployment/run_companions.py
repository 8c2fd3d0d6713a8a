"""Teacher and control of a run, as networks to be used beside its student."""

from dataclasses import replace
from pathlib import Path

from understudy import tasks
from understudy.comparison.arms import CONTROL
from understudy.config.recipe import Student, key_of
from understudy.experiment import build, networks
from understudy.experiment.run_directory import Run
from understudy.models.base import Wrapped


def teachers_of(run: Run, *, trust: bool) -> dict[str, Wrapped]:
    """Return the teachers of a run by name, `teacher` or `teacher dino`; none of a control.

    Args:
        run: A finished run.
        trust: Execute the Python file that the run names for its teacher, if it does.

    Raises:
        UnderstudyError: It cannot be built or loaded any more.
    """
    recipe = replace(run.recipe, trust=trust)
    if not recipe.each_teacher:
        return {}
    networks.check_trust(replace(recipe, student=Student()), run.recipe, run.path)
    config = run.config
    size = config.preprocessing.crop or build.LARGE
    task = tasks.find(recipe.task, recipe.training)
    teachers = networks.teachers(recipe, config.classes, task, view_size=size)
    return {networks.called(key_of(name)): network for name, network in teachers.items()}


def control_of(run: Run) -> Path | None:
    """Return the directory of the control of the same seed, if the run is part of a comparison."""
    path = run.path.resolve()
    control = path.parent.parent / CONTROL / path.name
    is_control = path.parent.name == CONTROL
    return None if is_control or not (control / "recipe.yaml").is_file() else control
