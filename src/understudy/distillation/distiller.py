"""Student, frozen teacher, methods and task in one forward pass that gives every loss by name."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.distillation.device_names import find_device
from understudy.distillation.stored_maps import StoredMaps as StoredMaps
from understudy.distillation.teacher import Teacher as Teacher
from understudy.distillation.training_outputs import TrainingOutputs
from understudy.distillation.user_batches import ReadableAgain, as_batch, num_images
from understudy.distillation.user_networks import check_apart
from understudy.distillation.weights import Weight as Weight
from understudy.distillation.weights import Weights
from understudy.errors import DataError, NetworkError, RecipeError, ShapeError
from understudy.features import SECOND, Features, of_group
from understudy.methods import Method
from understudy.models.base import Wrapped
from understudy.profiling import span
from understudy.tasks import Task

SINGLE_VALUE = "more than 1 value per channel"
"""Words of PyTorch's error for a batch normalisation of a single value."""


_READ_LATER = (Teacher, StoredMaps)
TeacherOutput = Features | Teacher | StoredMaps
"""Features of images; for a detector what is read where the student looks."""


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
        """Names of the teacher's features that at least one method reads."""
        return {name for method in self.methods.values() for name in cast(Method, method).reads}

    @property
    def unbounded_loss(self) -> bool:
        """True for a detector with a method whose loss lets features grow without bound."""
        methods = (cast(Method, method) for method in self.methods.values())
        return self.task.truth == "objects" and any(method.unbounded_loss for method in methods)

    def forward(
        self, batch: Batch, teacher: TeacherOutput, *, return_logits: bool = False
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], Tensor]:
        """Return the unweighted losses by name: those on labels and one of every method.

        The loss on labels is `task`; a student with losses of its own has several, `task/…`.

        Args:
            batch: Some images.
            teacher: Features of the teacher; or the teacher or its stored maps, to be read where
                the student looks.
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
        if isinstance(teacher, _READ_LATER) and student.locations is not None:
            with span("forward/teacher"):
                # Only now: a detector samples its locations during its own forward pass.
                reads = self.reads
                teacher = _only(teacher.at(student.locations, reads), reads)
        assert not isinstance(teacher, _READ_LATER)
        for label, method in self.methods.items():
            with span(f"forward/{label}"):
                # What is stored for one method alone loses the method's label.
                own = teacher | of_group(teacher, label)
                second = self._second_pass(cast(Method, method), student.batch)
                losses[label] = method(student.features | second, own, student.batch)
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


def _only(features: Features, names: Collection[str]) -> Features:
    """Drop features of other names, whose maps would fill memory until the step is done."""
    return {name: x for name, x in features.items() if name in names}


def weighted_total(
    losses: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]
) -> Float[Tensor, ""]:
    """Return the weighted sum of losses; all losses `task/…` have the weight `task`."""
    return torch.stack([weights[name.partition("/")[0]] * x for name, x in losses.items()]).sum()


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
    """Student and teacher in one pass: `distiller(images, labels)` gives every loss by name.

    Args:
        student: Network or detector to be trained.
        teacher: Network or detector to learn from; None for a control.
        methods: Label → method.
        task: What labels ask of the student.
        weights: Weight of `task` and of every method: `Weight`s or numbers.

    Attributes:
        replay: Gives the teacher's features of a batch in place of the teacher, such as a bank.
            Codes that it stores for one method alone are named `<label>/<name>`.
        stored: Given image and view numbers, returns True if `replay` needs no images for them.
    """

    def __init__(
        self,
        student: Wrapped,
        teacher: Wrapped | None,
        methods: Mapping[str, Method],
        task: Task,
        weights: Mapping[str, Weight | float],
    ) -> None:
        super().__init__()
        if methods and teacher is None:
            raise ShapeError(f"{', '.join(methods)} cannot work without a teacher; name one.")
        if teacher is not None:
            check_apart(student.module, teacher.module)
            _refuse_unsure_output(student, teacher)
        self.teacher = Teacher(teacher) if teacher is not None else None
        self.trainable = Trainable(student, methods, task)
        self._weights = Weights(weights)
        self.replay: Callable[[Batch], Features | StoredMaps] | None = None
        self.stored: Callable[[Tensor, Tensor], bool] = _none_stored

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
        if self.teacher is None:
            return
        outputs = TrainingOutputs(self.observe, self.teacher, self.student, batches, num_images)
        for method in self.trainable.methods.values():
            outputs.dtype = cast(Method, method).dtype
            method.prepare(outputs)  # type: ignore[operator]

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
        """Return the teacher's features that methods read, from `replay` if it is set.

        Empty without methods. For a detector, the teacher itself or its stored maps: they are read
        at the locations at which the student is observed, later in the same step.
        """
        if self.teacher is None or not self.trainable.methods:
            return {}
        return self.replay(batch) if self.replay else self.observe_live(batch)

    def observe_live(self, batch: Batch) -> Features | Teacher:
        """Return the same as `observe`, never from `replay`."""
        if self.teacher is None or not self.trainable.methods:
            return {}
        self.teacher.keep_evaluating()
        if self.task.truth == "objects":
            return self.teacher
        return _only(self.teacher(batch), self.trainable.reads)

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


def _none_stored(index: Tensor, view: Tensor) -> bool:
    return False
