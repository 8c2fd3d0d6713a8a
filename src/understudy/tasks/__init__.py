"""What labels ask of the student; one file per task, the file's name is the task's name."""

from importlib import import_module
from pkgutil import iter_modules

from understudy.config.recipe import Training
from understudy.errors import NameNotFound
from understudy.tasks._task import Evaluation as Evaluation
from understudy.tasks._task import Outputs as Outputs
from understudy.tasks._task import Task as Task
from understudy.tasks._vectors import COMPARED as COMPARED

DEFAULT = Training()


def names() -> list[str]:
    """Names of all tasks."""
    return sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str, training: Training = DEFAULT) -> Task:
    """The task of that name, its loss as a recipe wants it.

    Raises:
        NameNotFound: No such task; offers the nearest spelling.
    """
    if name not in names():
        raise NameNotFound("task", name, names())
    module = import_module(f"{__name__}.{name}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value is not Task
    )
    return found.of(training)
