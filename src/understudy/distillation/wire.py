"""Build a distiller from two networks and the names and hyper-parameters of methods."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from understudy import methods, tasks
from understudy.config.limits import Seed
from understudy.config.recipe import Recipe, TaskName, key_of_method, teacher_and_method
from understudy.config.schema import convert, hints_of
from understudy.distillation.distiller import Distiller, gives_scores
from understudy.distillation.labels import check_label
from understudy.distillation.memory_parts import enough_memory
from understudy.distillation.user_methods import recipe_of
from understudy.distillation.user_networks import (
    check_apart,
    check_finite,
    check_inputs,
    check_roles,
    check_trained,
    wrap,
)
from understudy.distillation.weights import Weight, as_weight
from understudy.errors import NetworkError, RecipeError, ShapeError, suggestion
from understudy.features import Extendable, Shapes
from understudy.functional import seeded
from understudy.methods import Grouped, Method
from understudy.models.base import Wrapped
from understudy.models.preprocessing import Input
from understudy.tasks import Task


def wire(
    student: nn.Module,
    teacher: nn.Module | Mapping[str, nn.Module] | None,
    methods: Mapping[str, float | Mapping[str, Any]],
    *,
    example: Tensor | None = None,
    task: TaskName = "classification",
    task_weight: float | Mapping[str, float] = 1.0,
    seed: int | None = None,
    student_input: Input | None = None,
    teacher_input: Input | Mapping[str, Input] | None = None,
    taps: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    classifier: Mapping[str, str] = MappingProxyType({}),
) -> Distiller:
    """Return a distiller of any two networks, for a training loop of your own.

    Both networks take the images exactly as the loop gives them, of any height and width: nothing
    is resized, scaled or clamped. With an `Input`, or where a `Network` is given, images are values
    in [0, 1] (or uint8), which are resized and normalised as the `Input` says.

    Args:
        student: Network to be trained; maps images to logits, or is a detector of torchvision.
        teacher: Network to learn from; several by names of your own; None only without methods.
        methods: Method's name → its weight, or its hyper-parameters with a `weight`. Of several
            teachers: name of the teacher → such a mapping.
        example: Images as both networks take them, of which only the number of channels, the height
            and the width matter. Not needed for detectors.
        task: `classification`, `multilabel`, `detection`, or `none` to learn from the teacher
            alone.
        task_weight: Weight of the loss on labels; a number, or as that of a method.
        seed: Seed of what methods draw when they are built, such as hashes and projectors; None
            draws it from torch's generator, which `torch.manual_seed` sets.
        student_input: Size and normalisation of images in [0, 1] for the student.
        teacher_input: The same for the teacher; of several by their names.
        taps: `student` or `teacher`, or the name of one of several teachers → feature name → module
            path, where a feature is not found automatically, such as
            `{"teacher": {"penultimate": "pool"}}`.
        classifier: The same name → path of the layer or module that computes the logits of the
            penultimate feature; "" if that network has none and its output is the feature.

    Returns:
        The distiller: `distiller(images, labels)` computes every loss by name, unweighted, such as
        `kd`, or `dino/kd` of a teacher with a name; `distiller.total(losses)` is what `backward` is
        called on.

    Raises:
        NameNotFound: There is no such method or task.
        RecipeError: A hyper-parameter or weight is wrong.
        ShapeError: `example` is missing, or a method cannot work with these networks.
        NetworkError: The features of a network cannot be found.

    >>> import torch
    >>> from torchvision.models import resnet18, resnet34
    >>> images = torch.rand(2, 3, 64, 64)
    >>> student, teacher = resnet18(num_classes=10), resnet34(num_classes=10)
    >>> distiller = wire(student, teacher, {"kd": 1}, example=images)
    >>> sorted(distiller(images, torch.tensor([3, 4])))
    ['kd', 'task']
    """
    resolved = tasks.find(task)
    teachers: dict[str, Any] = {"": teacher}
    # A mapping without any module, such as a state dict, is refused as no teacher.
    if isinstance(teacher, Mapping) and any(isinstance(x, nn.Module) for x in teacher.values()):
        teachers = dict(teacher)
    recipe = recipe_of(methods, teachers, task)
    if not recipe.each_method and not resolved.uses_labels:
        raise RecipeError(
            "Without labels there is nothing to learn from but a method: name one, such as "
            "{'lshfm': 1}."
        )
    roles = {name: name or "teacher" for name in teachers}
    check_roles(roles.values(), taps=taps, classifier=classifier)
    ours = wrap(
        student,
        "student",
        resolved,
        example,
        student_input,
        taps.get("student"),
        classifier.get("student"),
    )
    check_trained(ours.module)
    if teacher is None and not recipe.each_method:
        teachers = {}
    inputs = teacher_input if isinstance(teacher_input, Mapping) else {"": teacher_input}
    check_inputs(inputs, teachers)
    theirs = {
        name: wrap(
            module,
            f"teacher {name}".strip(),
            resolved,
            example,
            inputs.get(name),
            taps.get(roles[name]),
            classifier.get(roles[name]),
        )
        for name, module in teachers.items()
    }
    drawn = int(torch.randint(2**31, ())) if seed is None else convert(Seed, seed, "seed")
    wired = distiller(replace(recipe, seed=drawn), ours, theirs, resolved)
    wired.weights["task"] = as_weight("task_weight", task_weight)
    return wired


def distiller(
    recipe: Recipe, student: Wrapped, teachers: Mapping[str, Wrapped], task: Task
) -> Distiller:
    """Return the distiller of a student, its teachers and the methods of a recipe.

    Args:
        recipe: Names the methods, their hyper-parameters and weights.
        student: Network to be trained; a method may add layers to it.
        teachers: Networks to learn from, by their names in the recipe; none for a control.
        task: What labels ask of the student.

    Raises:
        UnderstudyError: A method does not exist, or cannot work with these networks.
    """
    _check_mixing(recipe, task)
    _check_labels(recipe)
    weights, specs = {"task": Weight(recipe.task_weight)}, {}
    for label, entry in recipe.each_method.items():
        kind, weights[label], hyper_parameters = _method_class(label, entry, recipe.task)
        _check_hard_labels(label, kind, recipe)
        specs[label] = kind, hyper_parameters
    if specs and not teachers:
        raise RecipeError(f"The method '{next(iter(specs))}' needs a teacher: give --teacher.name.")
    for network in teachers.values():
        check_apart(student.module, network.module)
        check_finite(network)
    built = _build(specs, student, teachers, task, recipe.seed) if teachers else {}
    return Distiller(student, teachers, built, task, weights)


_Specs = Mapping[str, tuple[type[Method], dict[str, Any]]]
"""Label → class and hyper-parameters of a method."""


def _build(
    specs: _Specs, student: Wrapped, teachers: Mapping[str, Wrapped], task: Task, seed: int
) -> dict[str, Method]:
    """Let every method extend the student, then build each."""
    _check_one_width(specs, teachers)
    # All extend first: a layer that one method adds changes the shapes that all of them see.
    for label, (kind, hyper_parameters) in specs.items():
        _check_softmax(label, kind, task.exclusive_classes and student.shapes.exclusive_classes)
        _check_image_index(label, kind, task)
        with seeded(seed + 2), enough_memory(label):
            for extendable, shapes in _pairs(student, _teacher_of(label, teachers)):
                kind.extend(extendable, shapes, **hyper_parameters)
    # Last of what changes the student: `extend` may have asked for the teacher's classifier.
    lender = next((label for label, (kind, _) in specs.items() if kind.reuses_classifier), None)
    if lender is not None or len(teachers) == 1:
        student.copy_classifier(_teacher_of(lender or "", teachers))
    built: dict[str, Method] = {}
    for label, (kind, hyper_parameters) in specs.items():
        teacher = _teacher_of(label, teachers)
        _check_no_group(label, teacher)
        # The task decides how logits are read, whatever the networks were trained for.
        ours, theirs = (
            network.shapes if task.exclusive_classes else network.shapes.independent()
            for network in (student, teacher)
        )
        # Seeded one by one: what a method draws must not depend on its neighbours.
        with seeded(seed + 1), enough_memory(label):
            built[label] = _method(kind, ours, theirs, hyper_parameters)
        if torch.float64 in _data_types(student) | _data_types(teacher):
            built[label].double()
    return built


def _teacher_of(label: str, teachers: Mapping[str, Wrapped]) -> Wrapped:
    """Return the teacher that a method learns from."""
    if len(teachers) == 1:
        return next(iter(teachers.values()))
    return teachers[teacher_and_method(label)[0]]


def _check_one_width(specs: _Specs, teachers: Mapping[str, Wrapped]) -> None:
    """Refuse methods that would each make the student's feature as wide as its own teacher's."""
    if len(teachers) < 2:
        return
    labels = [label for label, (kind, _) in specs.items() if kind.embeds]
    widths = {label: _teacher_of(label, teachers).shapes.get("penultimate") for label in labels}
    if len(set(widths.values())) > 1:
        sizes = " and ".join(f"{width[0]} for {label}" for label, width in widths.items() if width)
        raise ShapeError(
            f"A student has one penultimate feature, which these methods make as wide as that of "
            f"their teacher: {sizes}. Keep one of them, and use a method that adds no layer to the "
            "student for the other teacher, such as pefd, queue_kl or radio."
        )


def _check_no_group(label: str, teacher: Wrapped) -> None:
    if label in teacher.shapes.groups:
        raise RecipeError(
            f"A method cannot have the label '{label}', as locations of this detector are called "
            "so: give another label, and the method's name under 'method'."
        )


def _data_types(network: Wrapped) -> set[torch.dtype]:
    return {parameter.dtype for parameter in network.module.parameters()}


def _pairs(student: Wrapped, teacher: Wrapped) -> list[tuple[Extendable, Shapes]]:
    """Return the student with the teacher's shapes; of a detector, each group of locations."""
    ours, theirs = student.shapes.groups, teacher.shapes.groups
    if type(student) is not type(teacher) or ours.keys() != theirs.keys():
        raise NetworkError(
            f"The student {student.name} ({type(student.module).__name__}) and the teacher "
            f"{teacher.name} ({type(teacher.module).__name__}) are read at different locations in "
            "an image: use detectors of one kind, with equally many levels."
        )
    return [(student.group(name), theirs[name]) for name in ours] or [(student, teacher.shapes)]


def _method(
    kind: type[Method], student: Shapes, teacher: Shapes, hyper_parameters: dict[str, Any]
) -> Method:
    if student.groups:
        return Grouped(
            {
                name: _method(kind, shapes, teacher.groups[name], hyper_parameters)
                for name, shapes in student.groups.items()
            }
        )
    # The arguments of a method are the contract's, not those of its base class.
    return kind(student, teacher, **hyper_parameters)


def _method_class(
    label: str, entry: Mapping[str, Any], task: str
) -> tuple[type[Method], Weight, dict[str, Any]]:
    """Return class, weight and hyper-parameters of an entry of `methods`, completed for a task."""
    name = teacher_and_method(label)[1]
    own, path = dict(entry), key_of_method(label)
    kind = methods.find(convert(str, own.pop("method", name), f"{path}.method"))
    # Published values of the task first, so that those of the entry replace them.
    hyper_parameters = {**kind.published.get(task, {}), **own}
    weight = as_weight(f"{path}.weight", hyper_parameters.pop("weight", kind.published_weight))
    known, hints = methods.hyper_parameters(kind), hints_of(kind.__init__)
    for key, value in hyper_parameters.items():
        if key not in known:
            keys = ["weight", *known]
            raise RecipeError(
                f"Unknown key '{path}.{key}'{suggestion(key, keys)}. Known here: {', '.join(keys)}."
            )
        hyper_parameters[key] = convert(hints.get(key, Any), value, f"{path}.{key}")
    return kind, weight, hyper_parameters


def recipe_gives_scores(recipe: Recipe) -> bool:
    """Return False if the student of a recipe has an untrained classifier; see `gives_scores`."""
    kinds = (_method_class(x, entry, recipe.task)[0] for x, entry in recipe.each_method.items())
    return gives_scores(tasks.find(recipe.task), kinds)


def check_methods(recipe: Recipe) -> None:
    """Refuse what is wrong whatever the images and networks are, before they are loaded.

    Raises:
        RecipeError: A method or a hyper-parameter does not exist, or does not go with the task.
    """
    task = tasks.find(recipe.task)
    _check_mixing(recipe, task)
    _check_labels(recipe)
    for label, entry in recipe.each_method.items():
        kind = _method_class(label, entry, recipe.task)[0]
        _check_hard_labels(label, kind, recipe)
        _check_softmax(label, kind, task.exclusive_classes)
        _check_image_index(label, kind, task)


def _check_labels(recipe: Recipe) -> None:
    for methods_of_one in (recipe.methods, *(x.methods for x in recipe.teachers.values())):
        for label in methods_of_one:
            check_label(label)


def _check_mixing(recipe: Recipe, task: Task) -> None:
    data, smoothing = recipe.data, recipe.training.label_smoothing
    if task.truth != "class" and (data.mixup or data.cutmix or smoothing):
        raise RecipeError(
            "data.mixup, data.cutmix and training.label_smoothing are for one class per image; set "
            f"them to 0 for the task {recipe.task}."
        )


def _check_softmax(label: str, kind: type[Method], exclusive_classes: bool) -> None:
    if kind.requires_softmax and not exclusive_classes:
        raise RecipeError(
            f"The method '{label}' has no meaning where classes do not exclude each other: it "
            "needs a softmax over them or the one class of an image. Use kd, which here takes each "
            "class by itself, or a method that compares features, such as lshfm, nd or pefd."
        )


def _check_image_index(label: str, kind: type[Method], task: Task) -> None:
    if kind.requires_image_index and task.truth == "objects":
        raise RecipeError(
            f"The method '{label}' stores values for every image, but detectors are compared at "
            "locations that are new in every step: use another, such as lshfm, nd or pefd."
        )


def _check_hard_labels(label: str, kind: type[Method], recipe: Recipe) -> None:
    if kind.requires_hard_labels and (recipe.data.mixup or recipe.data.cutmix):
        raise RecipeError(
            f"The method '{label}' needs the one class of an image, and mixed images have two: "
            "set data.mixup and data.cutmix to 0, or leave the method out."
        )


def train_only(student: Wrapped, patterns: Sequence[str]) -> None:
    """Freeze the student's parameters that match no pattern; without patterns, freeze none.

    Batch normalisation still follows the images: its statistics are buffers, not parameters.

    Args:
        student: Network to be trained.
        patterns: Names of parameters in its module, with `*` and `?` as in a shell.

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
