"""From a recipe to the objects it names: task, images, networks, methods and loaders.

`load` reads the images and the teachers, which are the same for all methods. `assemble` adds the
student, the methods and the loaders. `experiment` does both.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from understudy import tasks
from understudy.batch import Batch
from understudy.config.image_size import Size
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe, key_of
from understudy.data import Loader, Source
from understudy.data.class_names import check as check_classes
from understudy.data.named_transforms import digests as digests_of_files
from understudy.data.subset import Subset, evenly
from understudy.distillation.distiller import Distiller
from understudy.distillation.wire import distiller, train_only
from understudy.errors import RecipeError
from understudy.experiment import defaults, networks, teacher_classes
from understudy.experiment.class_balance import say_balanced
from understudy.experiment.images import Images, read_images, read_test_images
from understudy.experiment.loaders import Loaders
from understudy.experiment.student_size import built_student
from understudy.experiment.view_sizes import say_resized
from understudy.experiment.weights_warning import warn_of_weights
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.models.weights import class_names, digest
from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")

LARGE = 224
"""Side of the views in pixels where neither the images nor the networks have one of their own."""


@dataclass(frozen=True)
class Loaded:
    """What does not depend on the methods of a recipe, nor on its student.

    Attributes:
        task: The supervised task.
        images: Training, validation and test images.
        teachers: Networks to learn from, by their names in the recipe; see `Recipe.each_teacher`.
        digests: Digests of the images of each split, and of the teachers.
    """

    task: Task
    images: Images
    teachers: dict[str, Wrapped]
    digests: dict[str, str]


@dataclass(frozen=True)
class Experiment:
    """Everything a recipe names, built.

    Attributes:
        recipe: The recipe, in which nothing is `auto` any more: see `defaults`.
        distiller: Student, teachers and methods.
        task: The supervised task.
        images: Training, validation and test images.
        train: Training images, shuffled and augmented, this process's share.
        everything: All training images in order, for methods that measure the teacher.
        test: Test images in order, this process's share.
        validation: Validation images likewise; None without any, `test` if they stand in for it.
        classes: Names of the student's classes; empty if they are not known.
        digests: Digests of the images of each split, and of the teachers.
        reasons: Key that was `auto` → why it has its value.
    """

    recipe: Recipe
    distiller: Distiller
    task: Task
    images: Images
    train: Loader
    everything: Loader
    test: Loader
    validation: Loader | None
    classes: tuple[str, ...]
    digests: dict[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def teacher(self) -> Wrapped | None:
        """The only network to learn from; None without one, `RecipeError` if there are several."""
        return self.distiller.teacher.network if self.distiller.teacher else None

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images and objects that were left out or repaired, each with the reason."""
        return self.images.skipped

    def prepare(self) -> None:
        """Let every method measure the teacher on all training images, in every process alike."""
        loader = self.everything
        for each in self.distiller.distillations:
            self.distiller.measure_of(
                each,
                partial(_single_pass, loader, each.stored),
                num_images=len(loader.labels),
            )


def _single_pass(
    loader: Loader, stored: Callable[[Tensor, Tensor], bool], augmented: bool
) -> Iterator[Batch]:
    return loader.single_pass(augmented=augmented, stored=stored)


def experiment(
    recipe: Recipe, *, rank: int = 0, world: int = 1, images: Images | None = None
) -> Experiment:
    """Build what a recipe names, for process `rank` of `world`.

    Args:
        recipe: Names everything.
        rank: Number of this process.
        world: Number of processes.
        images: The images of this recipe, if they are read already.

    Raises:
        UnderstudyError: Whatever the recipe names is missing, or does not fit together.
    """
    return assemble(recipe, load(recipe, images), rank=rank, world=world)


def load(recipe: Recipe, images: Images | None = None) -> Loaded:
    """Read the images, unless they are read already, and the teacher of a recipe.

    Raises:
        UnderstudyError: As for `experiment`.
    """
    networks.check_trust(recipe)
    task = tasks.find(recipe.task, recipe.training)
    images = images or read_images(recipe, task)
    train = images.train
    task = task.weighted(recipe.training.class_weights, train.labels, train.classes)
    teachers = _teachers(recipe, images.train, task)
    warn_of_weights(recipe, images)
    digests = {"training images": images.train.digest, "test images": images.test.digest}
    if images.validation is not None and images.measured == "test":
        digests["validation images"] = images.validation.digest
    for name, teacher in teachers.items():
        digests[teacher_digest(name)] = digest(teacher.module)[:16]
    if files := digests_of_files(recipe.data.transforms):
        digests["files of data.transforms"] = files
    return Loaded(task, images, teachers, digests)


def teacher_digest(name: str) -> str:
    """Return what the digest of a teacher is called: `teacher`, or `teacher dino`."""
    return f"teacher {name}".strip()


def assemble(recipe: Recipe, loaded: Loaded, *, rank: int = 0, world: int = 1) -> Experiment:
    """Build student, methods and loaders of a recipe on what was loaded for it.

    Raises:
        UnderstudyError: As for `experiment`.
    """
    task, train, teachers = loaded.task, loaded.images.train, loaded.teachers
    student, recipe, reasons = built_student(
        recipe,
        _num_classes(train, teachers, task),
        task,
        view_size=_expected_view_size(recipe, train),
    )
    recipe, others = defaults.resolve(recipe, loaded.images, student)
    student.class_names = _class_names(train, student, teachers)
    wired = distiller(recipe, student, teachers, task)
    for each in wired.distillations if task.uses_labels else ():
        methods = each.methods.values()
        teacher_classes.check(train.classes, each.teacher.network, methods, task)
    train_only(student, recipe.training.only)
    view_size = _view_size(recipe, train, student)
    say_resized(recipe, view_size, "student", student)
    for name, teacher in teachers.items():
        say_resized(recipe, view_size, key_of(name), teacher)
    loaders = Loaders(recipe, task, view_size, rank, world)
    images, test = loaded.images, loaders.test(loaded.images.test)
    training = loaders.training(train)
    say_balanced(recipe, training, train.classes, task)
    validation = test if images.validation is images.test else None
    if images.validation is not None and validation is None:
        validation = loaders.test(images.validation)
    return Experiment(
        recipe=recipe,
        distiller=wired,
        task=task,
        images=loaded.images,
        train=training,
        everything=loaders.everything(train),
        test=test,
        validation=validation,
        classes=student.class_names,
        digests=loaded.digests,
        reasons=reasons | others,
    )


def sampled(
    recipe: Recipe, built: Experiment, source: Source, count: int, *, training: bool = False
) -> Loader:
    """Return a loader of images that are drawn evenly from a source, in its order.

    Args:
        recipe: Says how images are prepared.
        built: The experiment of the recipe.
        source: Images of one of its splits.
        count: How many images to draw, at most.
        training: Shuffle and augment them in batches of training; they keep the same numbers.
    """
    index = evenly(len(source), count)
    part = Subset(source, index, source.labels[index])
    loaders = Loaders(recipe, built.task, built.train.views.size, rank=0, world=1)
    return loaders.training(part) if training else loaders.test(part)


@dataclass(frozen=True)
class TrainedStudent:
    """A trained student, its teachers, and the test images to evaluate them on.

    Attributes:
        student: The trained student.
        teachers: Its teachers, by their names in the recipe.
        task: The supervised task.
        test: Test images in order.
        split: Split of these images: `test`, or `validation` if there are no test images.
        origin: Where they come from.
    """

    student: Wrapped
    teachers: dict[str, Wrapped]
    task: Task
    test: Loader
    split: str
    origin: str


def trained_student(recipe: Recipe, weights: Path, *, trained_on: str = "") -> TrainedStudent:
    """Build the student in a file of weights, and the teacher and test images of a recipe.

    Args:
        recipe: Names everything.
        weights: File of the student's weights.
        trained_on: Digest of the images that it was trained on; empty if not known.

    Raises:
        UnderstudyError: As for `experiment`; also if the student was trained for other classes.
    """
    task = tasks.find(recipe.task, recipe.training)
    images = read_test_images(recipe, task, trained_on=trained_on)
    recipe, test = _to_evaluate(recipe, images), images.test
    check_classes(test.classes, class_names(weights), of="student")
    teachers = _teachers(recipe, test, task)
    student = networks.student(
        replace(recipe.student, weights=str(weights)),
        _num_classes(test, teachers, task),
        task,
        view_size=_expected_view_size(recipe, test),
        keep_classifier=True,
    )
    student.class_names = _class_names(test, student, teachers)
    return _to_measure(recipe, task, images, student, teachers)


def trained_network(recipe: Recipe) -> TrainedStudent:
    """Build the student of a recipe from weights of its own, as a teacher would be built.

    Its classes are put in the order of the data's by their names, and those that the data do not
    have are left out.

    Raises:
        UnderstudyError: As for `experiment`; also if the network has no weights, or other classes
            than the data.
    """
    spec = recipe.student
    if not spec.weights and not spec.name.startswith("hf:"):
        raise RecipeError(
            "Only a trained network can be evaluated: give a run directory, or --student.name with "
            "--student.weights, a file of weights or 'pretrained'."
        )
    networks.check_trust(recipe)
    task = tasks.find(recipe.task, recipe.training)
    images = read_test_images(recipe, task)
    warn_of_weights(recipe, images)
    recipe, test = _to_evaluate(recipe, images), images.test
    teachers = _teachers(recipe, test, task)
    size = _expected_view_size(recipe, test)
    student = networks.trained(recipe, test.classes, task, role="student", view_size=size)
    say_resized(recipe, _view_size(recipe, test, student), "student", student)
    if task.uses_labels:
        teacher_classes.check_number(test.classes, student)
        check_classes(test.classes, student.class_names, of="network")
    return _to_measure(recipe, task, images, student, teachers)


def _to_evaluate(recipe: Recipe, images: Images) -> Recipe:
    """Return a recipe with what is `auto` of images and networks as a trained network needs it."""
    size = None if recipe.student.size == AUTO else recipe.student.size
    resized = replace(recipe, student=replace(recipe.student, size=size))
    return defaults.for_images(resized, images)[0]


def _to_measure(
    recipe: Recipe, task: Task, images: Images, student: Wrapped, teachers: dict[str, Wrapped]
) -> TrainedStudent:
    test, split = images.test, images.measured
    loaders = Loaders(recipe, task, _view_size(recipe, test, student), rank=0, world=1)
    return TrainedStudent(
        student, teachers, task, loaders.test(test), split, images.origins.get(split, "")
    )


def _teachers(recipe: Recipe, source: Source, task: Task) -> dict[str, Wrapped]:
    size = _expected_view_size(recipe, source)
    return networks.teachers(recipe, source.classes, task, view_size=size)


def _num_classes(source: Source, teachers: Mapping[str, Wrapped], task: Task) -> int | None:
    """Return the number of classes of a student; None if nothing tells it.

    It is that of the data, or else that of the teacher; without labels, the other way round. Of
    several teachers it is the first one's that has classes.
    """
    numbers = {name: x.num_classes for name, x in teachers.items() if x.num_classes}
    of_data, of_teacher = len(source.classes) or None, next(iter(numbers.values()), None)
    if (not task.uses_labels or of_data is None) and len(set(numbers.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in numbers.items())
        LOGGER.info(
            f"The student has {of_teacher} classes, as many as {next(iter(numbers))}, the first of "
            f"the teachers with classes ({listed}): put another one first to have as many as that."
        )
    return of_data or of_teacher if task.uses_labels else of_teacher or of_data


def _class_names(
    source: Source, student: Wrapped, teachers: Mapping[str, Wrapped]
) -> tuple[str, ...]:
    """Return the names of the student's classes, of the data or a teacher; empty if unknown."""
    known = (source.classes, *(teacher.class_names for teacher in teachers.values()))
    return next((names for names in known if len(names) == student.num_classes), ())


def _view_size(recipe: Recipe, source: Source, student: Wrapped) -> Size:
    """Return the size of the views in pixels."""
    own_size = student.input.size if isinstance(student, Network) else None
    return recipe.data.size or source.size or own_size or LARGE


def _expected_view_size(recipe: Recipe, source: Source) -> Size:
    """Return the size of the views in pixels, as far as it is known without the student."""
    own = None if recipe.student.size == AUTO else recipe.student.size
    return recipe.data.size or source.size or own or LARGE
