"""Make class k of a teacher class k of the data, by their names, or refuse the teacher.

A teacher's classes are put in the order of the data once, when it is built: everything that reads
its logits or its classifier sees that order. Classes that the data do not have are removed.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache

from understudy.config import recipe
from understudy.data import class_names
from understudy.errors import DataError, NetworkError
from understudy.methods import Method
from understudy.models import detection
from understudy.models.adapters import huggingface, imagenet, torchvision
from understudy.models.base import Wrapped
from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")


def names_of(
    network: Wrapped,
    spec: recipe.Network,
    recorded: Sequence[str],
    task: Task,
    classes: Sequence[str],
) -> tuple[str, ...]:
    """Return a teacher's class names in the order of its logits; empty if nothing names them.

    Args:
        network: The teacher.
        spec: Names it in the recipe.
        recorded: Class names in the file of its weights.
        task: Says whether it is a detector.
        classes: Class names of the data, by which one of several spellings is chosen.

    Raises:
        NetworkError: The recipe names another number of classes than the network has.
    """
    if spec.classes:
        return _named(network, spec.classes)
    spellings = [tuple(recorded)] if recorded else _published(network, spec, task)
    known = [names for names in spellings if names and len(names) == network.num_classes]
    return class_names.nearest(classes, known)


def _named(network: Wrapped, classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(classes) != network.num_classes:
        raise NetworkError(
            f"The recipe names {len(classes)} classes of {network.name}, which has "
            f"{network.num_classes or 'none'}: give one name for each logit, in their order."
        )
    return classes


def _published(network: Wrapped, spec: recipe.Network, task: Task) -> list[tuple[str, ...]]:
    """Return the spellings of the classes of weights that others published, the usual one first."""
    library, _, name = spec.name.partition(":")
    if library == "hf":
        return [huggingface.class_names(network.module)]
    if spec.weights != "pretrained":
        return []
    if task.truth == "objects":
        return [detection.COCO_CLASSES]
    if library == "torchvision":
        return imagenet.with_folders(torchvision.class_names(name))
    return imagenet.spellings(network.module) if library in ("timm", "hf-hub") else []


def put_in_order(network: Wrapped, classes: Sequence[str], *, of: str = "teacher") -> None:
    """Put a teacher's classes in the order of the data's, in place, where the names allow it.

    Args:
        network: The teacher, or another network that is trained already.
        classes: Class names of the data; empty if unknown.
        of: What the network is, as messages call it.
    """
    if network.num_classes is None or not classes:
        return
    if not class_names.comparable(classes, network.class_names):
        if len(classes) == network.num_classes:
            _say_unknown(network.name, of)
        return
    rows = class_names.positions(classes, network.class_names)
    if rows is None or tuple(rows) == tuple(range(network.num_classes)):
        return
    try:
        network.select_classes(rows)
    except NetworkError:
        return  # `check` refuses the methods for which that matters
    LOGGER.info(
        f"The {len(network.class_names)} classes of the {of} {network.name} are matched by name "
        f"with the {len(classes)} of the data."
    )
    network.class_names = tuple(classes)


@cache
def _say_unknown(name: str, of: str) -> None:
    LOGGER.warning(
        f"The classes of the {of} {name} cannot be compared with those of the data, since its "
        "weights or the data name none: class k of both must be the same."
    )


def check_number(classes: Sequence[str], network: Wrapped) -> None:
    """Refuse a network that cannot be measured on data of some classes.

    Args:
        classes: Class names of the data; empty if unknown.
        network: The network, its classes in the order of the data's where the names allow it.

    Raises:
        NetworkError: It has no classifier.
        DataError: It has another number of classes.
    """
    number = network.num_classes
    if number is None:
        raise NetworkError(
            f"{network.name} has no classifier, so that no prediction of it can be measured: give "
            "weights with one, or train one on them first by `understudy train`."
        )
    if classes and number != len(classes):
        unknown = "" if network.class_names else ", whose names are not known"
        raise DataError(
            f"The data have {len(classes)} classes but {network.name} has {number}{unknown}: use "
            "data with its classes, or fine-tune it on these by `understudy train`."
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
