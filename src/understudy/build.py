"""From names to objects: the only place where a recipe's strings are resolved."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy import data, methods, models, recipe, tasks
from understudy.batch import UNLABELLED
from understudy.data import FileViews, Loader, MemoryViews, Source, Views, subset
from understudy.data.classes import check as check_classes
from understudy.distiller import Distiller, Weight
from understudy.errors import DataError, NetworkError, RecipeError, suggestion
from understudy.methods import Method
from understudy.models.network import Input, Network
from understudy.recipe import Recipe
from understudy.tasks import Task

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Experiment:
    """Everything a recipe names, built."""

    distiller: Distiller
    task: Task
    train: Loader
    everything: Loader
    test: Loader
    classes: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def teacher(self) -> Network | None:
        """The teacher, if the recipe has one."""
        return self.distiller.teacher.network if self.distiller.teacher else None

    def prepare(self) -> None:
        """Let every method measure the teacher on all training images, in every process alike."""
        loader = self.everything
        self.distiller.measure(
            lambda augmented: loader.once(augmented=augmented), num_images=len(loader.labels)
        )


def experiment(recipe: Recipe, *, rank: int = 0, world: int = 1) -> Experiment:
    """Build what a recipe names, for process `rank` of `world`.

    Raises:
        UnderstudyError: Whatever the recipe names is missing, or does not fit together.
    """
    task = tasks.find(recipe.task)
    train, test = sources(recipe)
    teacher = _teacher(recipe, train.classes)
    classes = len(train.classes) or (teacher.num_classes if teacher else None)
    with _seeded(recipe.seed):
        student = network(recipe.student, classes, "student")
    distiller = _distiller(recipe, student, teacher, task)
    size = recipe.data.size or train.size or student.input.size or 224
    labels = train.labels if task.uses_labels else torch.full_like(train.labels, UNLABELLED)
    share = recipe.data.labelled_share if recipe.methods else None
    if task.uses_labels and not recipe.methods and (labels == UNLABELLED).any():
        share = 1.0  # A control has no use for an image without a label.
    views = _views(recipe, train, size)
    batch, seed, workers = recipe.training.batch, recipe.seed, recipe.data.workers
    return Experiment(
        distiller=distiller,
        task=task,
        train=Loader(
            views,
            labels,
            batch=batch,
            seed=seed,
            shuffle=True,
            labelled_share=share,
            accumulate=recipe.training.accumulate,
            rank=rank,
            world=world,
            workers=workers,
        ),
        everything=Loader(
            views, labels, batch=EVALUATION_BATCH, seed=seed, shuffle=False, workers=workers
        ),
        test=Loader(
            _views(recipe, test, size),
            test.labels,
            batch=EVALUATION_BATCH,
            seed=seed,
            shuffle=False,
            rank=rank,
            world=world,
            workers=workers,
        ),
        classes=train.classes,
        skipped=train.skipped + test.skipped,
    )


def sources(recipe: Recipe) -> tuple[Source, Source]:
    """Training and test images of a recipe."""
    wanted = recipe.data
    found = data.find(wanted.source)
    train = found.load(wanted.root, "train", unreadable=wanted.unreadable)
    if wanted.validation:
        train, test = subset.split(train, wanted.validation, seed=recipe.seed)
    else:
        test = found.load(wanted.root, "test", unreadable=wanted.unreadable)
        if train.classes and test.classes:
            check_classes(test.classes, train.classes)
    if wanted.images is not None or wanted.labels is not None:
        train = subset.class_balanced(
            train, images=wanted.images, labels=wanted.labels, seed=recipe.seed
        )
    if recipe.task != "none" and not (train.labels != UNLABELLED).any():
        raise DataError(
            f"None of the {len(train)} training images has a label; sort them into one folder per "
            "class, or train without labels by --task none."
        )
    return train, test


def network(wanted: recipe.Network, num_classes: int | None, role: str) -> Network:
    """The network a recipe names; a run directory as weights also tells which network it holds."""
    made_by = Path(wanted.weights) / "recipe.yaml"
    if not wanted.name and made_by.is_file():
        stored = recipe.load(made_by).student
        wanted = replace(wanted, name=stored.name, options=stored.options | wanted.options)
    if not wanted.name:
        raise RecipeError(f"The recipe names no {role}: give --{role}.name.")
    return models.find(
        wanted.name,
        num_classes=num_classes,
        weights=wanted.weights,
        options=wanted.options,
        taps=wanted.taps,
        size=wanted.size,
        mean=wanted.mean,
        std=wanted.std,
        keep_classifier=role == "teacher",
    )


def wire(
    student: nn.Module,
    teacher: nn.Module | None,
    methods: Mapping[str, float | Mapping[str, Any]],
    *,
    example: Tensor,
    task: str = "classification",
) -> Distiller:
    """Any two networks and some methods, wired for a training loop of your own.

    Args:
        student: Network to be trained; maps images to logits.
        teacher: Network to learn from.
        methods: Method's name → its weight, or its hyper-parameters with a `weight`.
        example: Some images as both networks take them; only their size matters.
        task: `classification`, or `none` to learn from the teacher alone.

    Raises:
        UnderstudyError: A name does not exist, or a method cannot work with these networks.

    >>> from torchvision.models import resnet18, resnet34
    >>> images = torch.rand(2, 3, 64, 64)
    >>> distiller = wire(resnet18(num_classes=10), resnet34(num_classes=10), {"kd": 1}, example=images)
    >>> sorted(distiller(images, torch.tensor([3, 4])))
    ['kd', 'task']
    """
    given = {k: dict(v) if isinstance(v, Mapping) else {"weight": v} for k, v in methods.items()}
    wanted = Recipe(methods=given)
    wired = [
        module if isinstance(module, Network) else Network(module, input=Input(size=example.shape[-1]))
        for module in (student, teacher)
        if module is not None
    ]
    return _distiller(wanted, wired[0], (wired + [None])[1], tasks.find(task))


def check_methods(recipe: Recipe) -> None:
    """Refuse unknown methods and hyper-parameters before anything is loaded."""
    for label, given in recipe.methods.items():
        _method_class(label, given)


def _teacher(recipe: Recipe, classes: tuple[str, ...]) -> Network | None:
    if not (recipe.teacher.name or recipe.teacher.weights):
        return None
    if not recipe.teacher.weights and recipe.methods:
        raise NetworkError(
            f"The teacher {recipe.teacher.name} has no weights and would teach noise: give "
            "--teacher.weights, a file, a run directory or 'pretrained'."
        )
    with _seeded(recipe.seed):
        teacher = network(recipe.teacher, len(classes) or None, "teacher")
    if classes and teacher.classes:
        check_classes(classes, teacher.classes)
    return teacher


def _views(recipe: Recipe, source: Source, size: int) -> Views:
    augment, seed = recipe.data.augment, recipe.seed
    if source.pixels is not None and augment != "resized_crop":
        return MemoryViews(source.pixels, augment=augment, size=size, seed=seed)
    return FileViews(source, augment=augment, size=size, seed=seed)


def _distiller(recipe: Recipe, student: Network, teacher: Network | None, task: Task) -> Distiller:
    built: dict[str, Method] = {}
    weights = {"task": Weight(recipe.task_weight)}
    with _seeded(recipe.seed + 1):
        for label, given in recipe.methods.items():
            kind, weight, hyper_parameters = _method_class(label, given)
            if teacher is None:
                raise RecipeError(f"The method '{label}' needs a teacher: give --teacher.name.")
            kind.extend(student, teacher.shapes, **hyper_parameters)
            built[label] = kind(student.shapes, teacher.shapes, **hyper_parameters)
            weights[label] = weight
    if not built and not task.uses_labels:
        raise RecipeError(
            "Without labels there is nothing to learn from but a method: name one, such as "
            "--method lshfm."
        )
    return Distiller(student, teacher, built, task, weights)


def _method_class(
    label: str, given: Mapping[str, Any]
) -> tuple[type[Method], Weight, dict[str, Any]]:
    """Class, weight and hyper-parameters of one entry of `methods`."""
    rest = dict(given)
    kind = methods.find(rest.pop("method", label))
    weight = _weight(label, rest.pop("weight", kind.published_weight))
    known = methods.hyper_parameters(kind)
    for key in rest:
        if key not in known:
            there = ["weight", *known]
            raise RecipeError(
                f"Unknown key 'methods.{label}.{key}'{suggestion(key, there)}. "
                f"Known here: {', '.join(there)}."
            )
    return kind, weight, rest


def _weight(label: str, value: Any) -> Weight:
    try:
        return Weight(**value) if isinstance(value, Mapping) else Weight(float(value))
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"'methods.{label}.weight' is {value!r}; it must be a number or "
            "{value: …, warmup_epochs: …}."
        ) from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed of their own, so that arms differ in nothing but methods."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
