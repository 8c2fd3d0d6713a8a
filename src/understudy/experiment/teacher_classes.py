"""Make class k of a teacher class k of the data, by their names, or refuse the teacher.

A teacher's classes are put in the order of the data once, when it is built: everything that reads
its logits or its classifier sees that order. Classes that the data do not have are removed.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache

from understudy.config import recipe
from understudy.data import class_names
from understudy.errors import NetworkError
from understudy.methods import Method
from understudy.models import detection
from understudy.models.adapters import huggingface, torchvision
from understudy.models.base import Wrapped
from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")


def names_of(
    network: Wrapped, spec: recipe.Network, recorded: Sequence[str], task: Task
) -> tuple[str, ...]:
    """Return a teacher's class names in the order of its logits; empty if nothing names them.

    Args:
        network: The teacher.
        spec: Names it in the recipe.
        recorded: Class names in the file of its weights.
        task: Says whether it is a detector.
    """
    names = tuple(recorded)
    if not names and spec.weights == "pretrained" and task.truth == "objects":
        names = detection.COCO_CLASSES
    elif not names and spec.weights == "pretrained" and spec.name.startswith("torchvision:"):
        names = torchvision.class_names(spec.name.partition(":")[2])
    elif not names and spec.name.startswith("hf:"):
        names = huggingface.class_names(network.module)
    return names if len(names) == network.num_classes else ()


def put_in_order(network: Wrapped, classes: Sequence[str]) -> None:
    """Put a teacher's classes in the order of the data's, in place, where the names allow it.

    Args:
        network: The teacher.
        classes: Class names of the data; empty if unknown.
    """
    if network.num_classes is None or not classes:
        return
    if not class_names.comparable(classes, network.class_names):
        if len(classes) == network.num_classes:
            _say_unknown(network.name)
        return
    rows = class_names.positions(classes, network.class_names)
    if rows is None or tuple(rows) == tuple(range(network.num_classes)):
        return
    try:
        network.select_classes(rows)
    except NetworkError:
        return  # `check` refuses the methods for which that matters
    LOGGER.info(
        f"The {len(network.class_names)} classes of the teacher {network.name} are matched by name "
        f"with the {len(classes)} of the data."
    )
    network.class_names = tuple(classes)


@cache
def _say_unknown(name: str) -> None:
    LOGGER.warning(
        f"The classes of the teacher {name} cannot be compared with those of the data, since its "
        "weights or the data name none: class k of both must be the same."
    )


def check(
    classes: Sequence[str], teacher: Wrapped | None, methods: Iterable[Method], task: Task
) -> None:
    """Refuse a teacher of other classes for methods that compare classes.

    Raises:
        DataError: The classes have other names, or an order that the teacher cannot be put in.
    """
    if teacher is None or not any(method.compares_classes for method in methods):
        return
    training = "--task detection " if task.truth == "objects" else ""
    class_names.check(
        classes,
        teacher.class_names,
        advice=(
            f"use a teacher of these classes (understudy train {training}--student.name NAME …), "
            "or a method that compares features only, such as pefd"
        ),
    )
