"""Tasks: loss on labels, metrics and fidelity. One file per task; its name is the task's name."""

from importlib import import_module
from pkgutil import iter_modules
from typing import get_origin

from understudy.config.recipe import Training
from understudy.errors import NameNotFound
from understudy.tasks._image_outputs import COMPARED as COMPARED
from understudy.tasks._task import Evaluation as Evaluation
from understudy.tasks._task import Outcomes as Outcomes
from understudy.tasks._task import Outputs as Outputs
from understudy.tasks._task import Task as Task

DEFAULT = Training()


def names() -> list[str]:
    """List the names of all tasks."""
    return sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str, training: Training = DEFAULT) -> Task:
    """Build a task by name, with the loss that a recipe's `training` selects.

    Raises:
        NameNotFound: No such task; suggests the nearest spelling.
    """
    if name not in names():
        raise NameNotFound("task", name, names())
    module = import_module(f"{__name__}.{name}")
    (task,) = (
        value
        for value in vars(module).values()
        # An alias such as `list[int]` counts as a type in Python 3.10.
        if isinstance(value, type)
        and get_origin(value) is None
        and issubclass(value, Task)
        and value is not Task
    )
    return task.of(training)
