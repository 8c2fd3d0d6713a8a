"""Methods by name, between two networks: from a recipe's `methods` to a distiller."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from torch import Tensor, nn

from understudy import methods, tasks
from understudy.config.recipe import Recipe
from understudy.config.schema import convert
from understudy.distillation.distiller import Distiller, Weight
from understudy.errors import NetworkError, RecipeError, ShapeError, suggestion
from understudy.features import Extendable, Shapes
from understudy.functional import seeded
from understudy.methods import Grouped, Method
from understudy.models import detection
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.models.preprocessing import Input
from understudy.tasks import Task


def wire(
    student: nn.Module,
    teacher: nn.Module,
    methods: Mapping[str, float | Mapping[str, Any]],
    *,
    example: Tensor | None = None,
    task: str = "classification",
) -> Distiller:
    """Any two networks and some methods, wired for a training loop of your own.

    Args:
        student: Network to be trained; maps images to logits, or is a detector of torchvision.
        teacher: Network to learn from.
        methods: Method's name → its weight, or its hyper-parameters with a `weight`.
        example: Some images as both networks take them; only their size matters. Detectors need
            none.
        task: `classification`, `multilabel`, `detection`, or `none`: from the teacher alone.

    Raises:
        UnderstudyError: A name does not exist, or a method cannot work with these networks.

    >>> import torch
    >>> from torchvision.models import resnet18, resnet34
    >>> images = torch.rand(2, 3, 64, 64)
    >>> student, teacher = resnet18(num_classes=10), resnet34(num_classes=10)
    >>> distiller = wire(student, teacher, {"kd": 1}, example=images)
    >>> sorted(distiller(images, torch.tensor([3, 4])))
    ['kd', 'task']
    """
    given = {k: dict(v) if isinstance(v, Mapping) else {"weight": v} for k, v in methods.items()}
    wanted = tasks.find(task)
    ours, theirs = (
        module if isinstance(module, Wrapped) else _wrapped(module, wanted, example)
        for module in (student, teacher)
    )
    return distiller(Recipe(task=task, methods=given), ours, theirs, wanted)  # type: ignore[arg-type]


def _wrapped(module: nn.Module, task: Task, example: Tensor | None) -> Wrapped:
    if task.truth == "objects":
        return detection.wrap(module)
    if example is None:
        raise ShapeError("Features are found by a look at images: give some as `example`.")
    return Network(module, input=Input(size=example.shape[-1]))


def distiller(recipe: Recipe, student: Wrapped, teacher: Wrapped | None, task: Task) -> Distiller:
    """Student, teacher and the methods of a recipe, wired.

    Raises:
        UnderstudyError: A method does not exist, or cannot work with these networks.
    """
    _check_blends(recipe, task)
    weights, wanted = {"task": Weight(recipe.task_weight)}, {}
    for label, given in recipe.methods.items():
        kind, weights[label], hyper_parameters = _method_class(label, given, recipe.task)
        _check_labels(label, kind, recipe)
        wanted[label] = kind, hyper_parameters
    if wanted and teacher is None:
        raise RecipeError(
            f"The method '{next(iter(wanted))}' needs a teacher: give --teacher.name."
        )
    built = _built(wanted, student, teacher, task, recipe.seed) if teacher is not None else {}
    if not built and not task.uses_labels:
        raise RecipeError(
            "Without labels there is nothing to learn from but a method: name one, such as "
            "--method lshfm."
        )
    return Distiller(student, teacher, built, task, weights)


def _built(
    wanted: Mapping[str, tuple[type[Method], dict[str, Any]]],
    student: Wrapped,
    teacher: Wrapped,
    task: Task,
    seed: int,
) -> dict[str, Method]:
    # A layer that one method adds to the student changes the shapes that all of them see.
    for label, (kind, hyper_parameters) in wanted.items():
        _check_softmax(label, kind, task.exclusive_classes and student.shapes.exclusive_classes)
        _check_numbered(label, kind, task)
        with seeded(seed + 2):
            for part, shapes in _parts(student, teacher):
                kind.extend(part, shapes, **hyper_parameters)
    student.copy_classifier(teacher)
    ours, theirs = (
        network.shapes if task.exclusive_classes else network.shapes.independent()
        for network in (student, teacher)
    )
    built: dict[str, Method] = {}
    for label, (kind, hyper_parameters) in wanted.items():
        # Seeded one by one: what a method draws does not depend on its neighbours.
        with seeded(seed + 1):
            built[label] = _method(kind, ours, theirs, hyper_parameters)
    return built


def _parts(student: Wrapped, teacher: Wrapped) -> list[tuple[Extendable, Shapes]]:
    """What methods extend and what they compare it with: all, or each group of places apart."""
    ours, theirs = student.shapes.groups, teacher.shapes.groups
    if type(student) is not type(teacher) or ours.keys() != theirs.keys():
        raise NetworkError(
            f"The student {student.name} ({type(student.module).__name__}) and the teacher "
            f"{teacher.name} ({type(teacher.module).__name__}) are read at different places in an "
            "image: take detectors of one kind, with as many levels."
        )
    return [(student.group(name), theirs[name]) for name in ours] or [(student, teacher.shapes)]


def _method(
    kind: type[Method], student: Shapes, teacher: Shapes, hyper_parameters: dict[str, Any]
) -> Method:
    if student.groups:
        parts = {name: (part, teacher.groups[name]) for name, part in student.groups.items()}
        return Grouped(
            {name: _method(kind, *part, hyper_parameters) for name, part in parts.items()}
        )
    # The arguments of a method are the contract's, not those of its base class.
    return kind(student, teacher, **hyper_parameters)  # type: ignore[call-arg]


def _method_class(
    label: str, given: Mapping[str, Any], task: str
) -> tuple[type[Method], Weight, dict[str, Any]]:
    """Class, weight and hyper-parameters of one entry of `methods`, completed for the task."""
    if "." in label:  # which torch allows in no name of a module
        raise RecipeError(
            f"A method's label has no dots: instead of '{label}' give a label of your own, such as "
            f"mine, and the method '{label}' under 'methods.mine.method'."
        )
    rest = dict(given)
    kind = methods.find(rest.pop("method", label))
    rest = {**kind.published.get(task, {}), **rest}
    weight = _weight(label, rest.pop("weight", kind.published_weight))
    known, hints = methods.hyper_parameters(kind), get_type_hints(kind.__init__)
    for key, value in rest.items():
        if key not in known:
            there = ["weight", *known]
            raise RecipeError(
                f"Unknown key 'methods.{label}.{key}'{suggestion(key, there)}. "
                f"Known here: {', '.join(there)}."
            )
        rest[key] = convert(hints.get(key, Any), value, f"methods.{label}.{key}")
    return kind, weight, rest


def _weight(label: str, value: Any) -> Weight:
    given = dict(value) if isinstance(value, Mapping) else {"value": value}
    sound = all(type(x) in (int, float) and x >= 0 for x in given.values())
    if (
        not sound
        or "value" not in given
        or given.keys() - {"value", "warmup_epochs", "warmup_counts_from"}
    ):
        raise RecipeError(
            f"'methods.{label}.weight' is {value!r}; it must be a number of at least 0 or "
            "{value: …, warmup_epochs: …, warmup_counts_from: 0 or 1}."
        )
    return Weight(**given)


def check_methods(recipe: Recipe) -> None:
    """Refuse unknown methods and hyper-parameters before anything is loaded."""
    for label, given in recipe.methods.items():
        kind = _method_class(label, given, recipe.task)[0]
        _check_labels(label, kind, recipe)
        _check_softmax(label, kind, tasks.find(recipe.task).exclusive_classes)


def _check_blends(recipe: Recipe, task: Task) -> None:
    data, smoothing = recipe.data, recipe.training.label_smoothing
    if task.truth != "class" and (data.mixup or data.cutmix or smoothing):
        raise RecipeError(
            "data.mixup, data.cutmix and training.label_smoothing are for one class an image; set "
            f"them to 0 for the task {recipe.task}."
        )


def _check_softmax(label: str, kind: type[Method], exclusive_classes: bool) -> None:
    if kind.requires_softmax and not exclusive_classes:
        raise RecipeError(
            f"The method '{label}' has no meaning where classes do not exclude each other: it "
            "needs a softmax over them or the one class of an image. Use kd, which here takes each "
            "class by itself, or a method that compares features, such as lshfm, nd or pefd."
        )


def _check_numbered(label: str, kind: type[Method], task: Task) -> None:
    if kind.requires_image_index and task.truth == "objects":
        raise RecipeError(
            f"The method '{label}' keeps something for every image, but detectors are compared at "
            "places that are new in every step: use another, such as lshfm, nd or pefd."
        )


def _check_labels(label: str, kind: type[Method], recipe: Recipe) -> None:
    if kind.requires_hard_labels and (recipe.data.mixup or recipe.data.cutmix):
        raise RecipeError(
            f"The method '{label}' asks which one class an image has, and mixed images have two: "
            "set data.mixup and data.cutmix to 0, or leave the method out."
        )


def train_only(student: Wrapped, patterns: Sequence[str]) -> None:
    """Freeze the student's parameters that match none of some patterns; without any, none.

    Batch normalisation still follows the images: its statistics are no parameters.

    Raises:
        RecipeError: A pattern matches nothing.
    """
    named = dict(student.module.named_parameters())
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            raise RecipeError(
                f"No parameter of {student.name} is called '{pattern}' in training.only"
                f"{suggestion(pattern, named)}; its last ones are {', '.join([*named][-4:])}."
            )
    for name, parameter in named.items() if patterns else ():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
