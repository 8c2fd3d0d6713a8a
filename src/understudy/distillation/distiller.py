"""Student, frozen teachers, methods and task in one forward pass that gives every loss by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.recipe import labelled, teacher_and_method
from understudy.distillation.device_names import find_device
from understudy.distillation.distillation import READ_LATER, TeacherOutput, only
from understudy.distillation.distillation import Distillation as Distillation
from understudy.distillation.stored_maps import StoredMaps as StoredMaps
from understudy.distillation.teacher import Teacher as Teacher
from understudy.distillation.training_outputs import TrainingOutputs
from understudy.distillation.user_batches import ReadableAgain, as_batch, num_images
from understudy.distillation.user_networks import check_apart
from understudy.distillation.weights import Weight as Weight
from understudy.distillation.weights import Weights, weight_of
from understudy.errors import DataError, NetworkError, RecipeError, ShapeError
from understudy.features import SECOND, Features, of_group
from understudy.methods import Call, Method, check_joined, joint_losses
from understudy.models.base import Wrapped
from understudy.profiling import span
from understudy.tasks import Task

SINGLE_VALUE = "more than 1 value per channel"
"""Words of PyTorch's error for a batch normalisation of a single value."""


def gives_scores(task: Task, methods: Iterable[type[Method]]) -> bool:
    """Return False if a student has an untrained classifier, as nothing reads its scores."""
    return task.uses_labels or any(method.gives_scores() for method in methods)


@final
class Trainable(nn.Module):
    """Everything that is trained: the student and the modules of the methods.

    One ordinary module whose forward pass returns the losses, so that DistributedDataParallel,
    `torch.compile` and optimizers need no special case.
    """

    def __init__(self, student: Wrapped, methods: Mapping[str, Method], task: Task) -> None:
        super().__init__()
        self.student = student
        self.methods = nn.ModuleDict(methods)
        self.task = task
        # A buffer, so that it moves with the networks; the images tell it, and no state holds it.
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", task.class_weights, persistent=False)

    @property
    def reads(self) -> set[str]:
        """Names of the only teacher's features that at least one method reads."""
        return {name for method in self.methods.values() for name in cast(Method, method).reads}

    def methods_of(self, teacher: str) -> dict[str, Method]:
        """Return the methods that learn from a teacher, by their labels among its own."""
        parts = {teacher_and_method(label): method for label, method in self.methods.items()}
        return {own: cast(Method, x) for (name, own), x in parts.items() if name == teacher}

    @property
    def gives_scores(self) -> bool:
        """False if the student's scores are those of an untrained classifier, without labels."""
        kinds = (type(cast(Method, method)) for method in self.methods.values())
        return gives_scores(self.task, kinds)

    @property
    def unbounded_loss(self) -> bool:
        """True for a detector with a method whose loss lets features grow without bound."""
        methods = (cast(Method, method) for method in self.methods.values())
        return self.task.truth == "objects" and any(method.unbounded_loss for method in methods)

    def forward(
        self, batch: Batch, teacher: TeacherOutput, *, return_logits: bool = False
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], Tensor]:
        """Return the unweighted losses by name: those on labels and one of every method.

        The loss on labels is `task`; a student with losses of its own has several, `task/…`. Those
        of methods have their labels: `kd`, or `dino/kd` of a teacher with the name `dino`.

        Args:
            batch: Some images.
            teacher: Features of the teacher, under `dino/…` of a teacher with a name; or the
                teacher or its stored maps, to be read where the student looks.
            return_logits: Return the student's logits behind the losses.

        Raises:
            ShapeError: The logits are asked for, and the student has none of whole images.
        """
        with span("forward/student"):
            # Without methods nothing is compared, and a detector need not record its features.
            student = (
                self.student.observe(batch)
                if self.methods
                else self.student.observe_for_task(batch)
            )
        task_loss = self.task.loss(student.features, batch, self.class_weights)
        losses = dict(student.losses) if task_loss is None else {"task": task_loss}
        if isinstance(teacher, READ_LATER) and student.locations is not None:
            with span("forward/teacher"):
                # Only now: a detector samples its locations during its own forward pass.
                reads = self.reads
                teacher = only(teacher.at(student.locations, reads), reads)
        assert not isinstance(teacher, READ_LATER)
        of_teacher: Features = teacher

        def call(label: str) -> Call:
            name = teacher_and_method(label)[0]
            features = of_group(of_teacher, name) if name else of_teacher
            # What is stored for one method alone loses the method's label.
            own = features | of_group(of_teacher, label)
            second = self._second_pass(cast(Method, self.methods[label]), student.batch)
            return student.features | second, own, student.batch

        losses |= joint_losses(cast(Mapping[str, Method], self.methods), call)
        if not return_logits:
            return losses
        if student.locations is not None or "logits" not in student.features:
            raise ShapeError(
                f"{self.student.name} has no logits of whole images to return: leave "
                "`return_logits` out."
            )
        return losses, student.features["logits"]

    def _second_pass(self, method: Method, batch: Batch) -> Features:
        """Return the student's features of the images that a method changes; empty for most."""
        changed = method.second_images(batch)
        if changed is None:
            return {}
        features = self.student.observe(replace(batch, images=changed.images)).features
        return {f"{SECOND}/{name}": x for name, x in (features | changed.features).items()}


def weighted_total(
    losses: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]
) -> Float[Tensor, ""]:
    """Return the weighted sum of losses; all losses `task/…` have the weight `task`."""
    return torch.stack([weights[weight_of(name)] * x for name, x in losses.items()]).sum()


def _refuse_unsure_output(student: Wrapped, teacher: Wrapped) -> None:
    """Refuse a teacher whose logits may have been taken for its penultimate feature.

    Raises:
        NetworkError: Its classifier is not found, and it returns a value for each class.
    """
    why, classes = teacher.shapes.no_logits, student.num_classes
    if why and classes is not None and teacher.shapes.get("penultimate") == (classes,):
        raise NetworkError(
            f"{teacher.name} returns {classes} values, as many as the student has classes. {why} "
            "If it is a feature, say so by classifier: '' (in a recipe: none)."
        )


@final
class Distiller(nn.Module):
    """Student and teachers in one pass: `distiller(images, labels)` gives every loss by name.

    Args:
        student: Network or detector to be trained.
        teachers: Networks or detectors to learn from, by name; of a single one the name may be
            empty; none for a control.
        methods: Label → method; of a teacher with the name `dino` the label is `dino/kd`.
        task: What labels ask of the student.
        weights: Weight of `task` and of every method: `Weight`s or numbers.

    Attributes:
        distillations: One for each teacher, with its methods.
    """

    def __init__(
        self,
        student: Wrapped,
        teachers: Mapping[str, Wrapped],
        methods: Mapping[str, Method],
        task: Task,
        weights: Mapping[str, Weight | float],
    ) -> None:
        super().__init__()
        if methods and not teachers:
            raise ShapeError(f"{', '.join(methods)} cannot work without a teacher; name one.")
        for network in teachers.values():
            check_apart(student.module, network.module)
            _refuse_unsure_output(student, network)
        self.trainable = Trainable(student, methods, task)
        objects = task.truth == "objects"
        self._distillations = nn.ModuleList(
            Distillation(
                name, Teacher(network), self.trainable.methods_of(name), at_locations=objects
            )
            for name, network in teachers.items()
        )
        check_joined(methods)
        self._weights = Weights(weights)

    @property
    def distillations(self) -> tuple[Distillation, ...]:
        """One for each teacher, with its methods; none for a control without a teacher."""
        return cast(tuple[Distillation, ...], tuple(self._distillations))

    @property
    def single(self) -> Distillation | None:
        """That of the only teacher; None without one.

        Raises:
            RecipeError: There are several.
        """
        if len(self.distillations) > 1:
            names = ", ".join(each.name for each in self.distillations)
            raise RecipeError(
                f"The distiller has several teachers, {names}: take one of its `distillations`."
            )
        return next(iter(self.distillations), None)

    @property
    def teacher(self) -> Teacher | None:
        """The only teacher; None without one, `RecipeError` if there are several."""
        return self.single.teacher if self.single else None

    @property
    def replay(self) -> Callable[[Batch], Features | StoredMaps] | None:
        """What gives the features of the only teacher in its place; see `Distillation`."""
        return self.single.replay if self.single else None

    @replay.setter
    def replay(self, replay: Callable[[Batch], Features | StoredMaps] | None) -> None:
        if self.single is None:
            raise RecipeError("Without a teacher there is nothing to replay: leave `replay` out.")
        self.single.replay = replay

    def to(self, *args: Any, **kwargs: Any) -> "Distiller":
        """Move all networks and methods, as any module; the device must exist on this machine.

        Raises:
            RecipeError: There is no such device.
        """
        for device in (*args, kwargs.get("device")):
            if isinstance(device, str | torch.device) and str(device) != "meta":
                find_device(str(device))
        return super().to(*args, **kwargs)

    @property
    def weights(self) -> Weights:
        """Weight of `task` and of every method; takes plain numbers, `weights["kd"] = 5.0`."""
        return self._weights

    @property
    def student(self) -> Wrapped:
        """Network being trained."""
        return self.trainable.student

    @property
    def task(self) -> Task:
        """What labels ask of the student."""
        return self.trainable.task

    def prepare(self, loader: Iterable[Any]) -> None:
        """Let every method measure the teacher once, before training.

        Args:
            loader: Yields `(images, labels)`, images, or mappings with `image` and `label`; read
                once for each method that measures.

        Raises:
            DataError: The loader gives other values, no images, or cannot be read so often.
        """
        images = ReadableAgain(loader, self.task, self.student.num_classes)
        self.measure(images.batches, num_images=num_images(loader))

    def measure(
        self, batches: Callable[[bool], Iterator[Batch]], *, num_images: int | None
    ) -> None:
        """Let every method measure the teacher on clean or on augmented images, as it asks.

        Args:
            batches: Given whether images are augmented, yields every training image once.
            num_images: Images of one pass; None if that is not known.
        """
        for each in self.distillations:
            self.measure_of(each, batches, num_images=num_images)

    def measure_of(
        self,
        each: Distillation,
        batches: Callable[[bool], Iterator[Batch]],
        *,
        num_images: int | None,
    ) -> None:
        """Do the same for the methods of one teacher."""
        outputs = TrainingOutputs(each.observe, each.teacher, self.student, batches, num_images)
        for method in each.methods.values():
            outputs.dtype = method.dtype
            method.prepare(outputs)

    def forward(
        self,
        images: Tensor | Sequence[Tensor] | Batch,
        labels: Tensor | Sequence[Mapping[str, Tensor]] | None = None,
        *,
        return_logits: bool = False,
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], Float[Tensor, "batch classes"]]:
        """Return the unweighted losses by name; with `return_logits`, also the student's logits.

        Args:
            images: As for `Batch.of`, or a batch.
            labels: As for `Batch.of`; also soft labels (batch, classes), as mixup gives them.
            return_logits: Return `(losses, logits)`, for a loss of your own on the same pass.

        Raises:
            DataError: The labels do not fit the images, the task or the network, or a batch is too
                small for batch normalisation.
            RecipeError: A method needs the one class of an image, and the labels are soft.
        """
        batch = as_batch(images, labels, self.task, self.student.num_classes)
        self._check_hard(batch)
        try:
            return self.trainable(batch, self.observe(batch), return_logits=return_logits)  # type: ignore[no-any-return]
        except ValueError as error:
            if SINGLE_VALUE not in str(error):
                raise
            raise DataError(
                f"Batch normalisation needs several values per channel in training, and a batch of "
                f"{len(batch)} had one: give larger batches, such as by `drop_last=True` in your "
                "loader, or larger images where maps shrink to one pixel."
            ) from error

    def _check_hard(self, batch: Batch) -> None:
        if batch.soft is None and batch.mixed is None:
            return
        for label, method in self.trainable.methods.items():
            if cast(Method, method).requires_hard_labels:
                raise RecipeError(
                    f"The method '{label}' needs the one class of an image, and these labels are "
                    "soft (mixup, cutmix or smoothing): give class numbers, or leave the method "
                    "out."
                )

    def observe(self, batch: Batch) -> TeacherOutput:
        """Return the features that methods read, of every teacher, from its `replay` if it is set.

        Those of a teacher with a name are under `dino/…`. Empty without methods. For a detector,
        the teacher itself or its stored maps: they are read at the locations at which the student
        is observed, later in the same step.
        """
        return _merged({each.name: each.observe(batch) for each in self.distillations})

    def observe_live(
        self, batch: Batch, *, stored: Mapping[str, Features] = MappingProxyType({})
    ) -> TeacherOutput:
        """Return the same as `observe`, never from a `replay`.

        Args:
            batch: Some images.
            stored: Features of some teachers, which do not run then, by their names.
        """
        observed = {
            each.name: stored[each.name] if each.name in stored else each.observe_live(batch)
            for each in self.distillations
        }
        return _merged(observed)

    def total(self, losses: Mapping[str, Tensor], epoch: int | None = None) -> Float[Tensor, ""]:
        """Return the weighted sum of the losses, to call `backward` on.

        Args:
            losses: What a call of the distiller returned.
            epoch: Counted from 0; None only where no weight depends on it.

        Raises:
            RecipeError: A weight rises over the first epochs and `epoch` is None, or a loss has no
                weight, or there are none.
        """
        if not losses:
            raise RecipeError(
                "There are no losses to add up: give what a call of the distiller returned, "
                "`distiller.total(distiller(images, labels))`."
            )
        return weighted_total(losses, self.weights.at(epoch, losses))


def _merged(observed: Mapping[str, TeacherOutput]) -> TeacherOutput:
    """Return the features of all teachers, each under its teacher's name if that has one."""
    merged: Features = {}
    for name, features in observed.items():
        if isinstance(features, READ_LATER):
            return features
        merged |= {labelled(name, key): x for key, x in features.items()}
    return merged
