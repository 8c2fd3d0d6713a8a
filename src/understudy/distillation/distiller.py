"""Student, frozen teacher, methods and task in one forward pass that gives every loss by name."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Features, Locations, Observation, TeacherOutputs, by_group, of_group
from understudy.methods import Method
from understudy.models.base import FeatureReader, Wrapped
from understudy.profiling import span
from understudy.tasks import Task


@dataclass(frozen=True)
class Weight:
    """Coefficient of one loss, which rises linearly over the first `warmup_epochs`.

    Args:
        value: The weight after the warm-up.
        warmup_epochs: Epochs of the warm-up; 0 has none.
        warmup_counts_from: Number of the first epoch in the warm-up. The code of ND counts from 0,
            so that the first epoch has weight 0; that of mdistiller (DKD, ReviewKD) from 1: the
            first epoch has `value / warmup_epochs`, and epoch `warmup_epochs` the whole value.
    """

    value: float
    warmup_epochs: float = 0.0
    warmup_counts_from: int = 0

    def at(self, epoch: int) -> float:
        """Return the weight in an epoch counted from 0."""
        if not self.warmup_epochs:
            return self.value
        return self.value * min(1.0, (epoch + self.warmup_counts_from) / self.warmup_epochs)


@final
class Teacher(nn.Module):
    """A frozen network: always in evaluation mode, never part of a gradient.

    Attributes:
        network: Network to learn from.
        precision: Dtype of the forward pass; None for that of the weights.
    """

    def __init__(self, network: Wrapped) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.precision: torch.dtype | None = None
        self._reader: FeatureReader | None = None
        self._frozen = False

    def freeze(self, precision: torch.dtype | None) -> None:
        """Freeze the precision, the weights and the device, so that `at` may use a faster copy.

        Moving the teacher or changing its weights afterwards has no effect on that copy.

        Args:
            precision: Dtype of the forward pass; None for that of the weights.
        """
        self.precision, self._reader, self._frozen = precision, None, True

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode when the module around it is switched to training."""
        return super().train(False)

    # `no_grad`, not `inference_mode`: a squared error keeps the teacher's tensor for its backward.
    @torch.no_grad()
    def forward(self, batch: Batch) -> Features:
        """Return features of whole images."""
        with self._autocast(batch.images.device.type):
            return self.network.observe(batch).features

    @torch.no_grad()
    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Return features at the locations where a student was observed; see `Wrapped.at`."""
        with self._autocast(next(self.parameters()).device.type):
            if self._reader is None:
                network = self.network
                # Not before it is read: teachers of whole images never need the copy.
                self._reader = network.frozen_reader(self.precision) if self._frozen else network.at
            return self._reader(locations, reads)

    @torch.no_grad()
    def observe_for_prepare(self, batch: Batch, student: Wrapped) -> Observation:
        """Return features at the locations where the teacher itself would look."""
        with self._autocast(batch.images.device.type):
            return self.network.observe_for_prepare(batch, student)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Features:
        """Return what metrics of the teacher are computed from; see `Wrapped.outputs`."""
        with self._autocast(batch.images.device.type):
            return self.network.outputs(batch)

    def _autocast(self, device: str) -> torch.autocast:
        return torch.autocast(device, dtype=self.precision, enabled=self.precision is not None)


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

    @property
    def reads(self) -> set[str]:
        """Names of the teacher's features that at least one method reads."""
        return {name for method in self.methods.values() for name in cast(Method, method).reads}

    @property
    def unbounded_loss(self) -> bool:
        """True for a detector with a method whose loss lets features grow without bound."""
        methods = (cast(Method, method) for method in self.methods.values())
        return self.task.truth == "objects" and any(method.unbounded_loss for method in methods)

    def forward(self, batch: Batch, teacher: Features | Teacher) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted losses by name: those on labels and one of every method.

        The loss on labels is `task`; a student with losses of its own has several, `task/…`.

        Args:
            batch: Some images.
            teacher: Features of the teacher; or the teacher, to be read where the student looks.
        """
        with span("forward/student"):
            # Without methods nothing is compared, and a detector need not record its features.
            student = (
                self.student.observe(batch)
                if self.methods
                else self.student.observe_for_task(batch)
            )
        task_loss = self.task.loss(student.features, batch)
        losses = dict(student.losses) if task_loss is None else {"task": task_loss}
        if isinstance(teacher, Teacher) and student.locations is not None:
            with span("forward/teacher"):
                # Only now: a detector samples its locations during its own forward pass.
                reads = self.reads
                teacher = _only(teacher.at(student.locations, reads), reads)
        assert not isinstance(teacher, Teacher)
        for label, method in self.methods.items():
            with span(f"forward/{label}"):
                # What is stored for one method alone loses the method's label.
                own = teacher | of_group(teacher, label)
                losses[label] = method(student.features, own, student.batch)
        return losses


def _only(features: Features, names: Collection[str]) -> Features:
    """Drop features of other names, whose maps would fill memory until the step is done."""
    return {name: x for name, x in features.items() if name in names}


def weighted_total(
    losses: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]
) -> Float[Tensor, ""]:
    """Return the weighted sum of losses; all losses `task/…` have the weight `task`."""
    return torch.stack([weights[name.partition("/")[0]] * x for name, x in losses.items()]).sum()


@final
class Distiller(nn.Module):
    """Student and teacher in one pass: `distiller(images, labels)` gives every loss by name.

    Args:
        student: Network or detector to be trained.
        teacher: Network or detector to learn from; None for a control.
        methods: Label → method.
        task: What labels ask of the student.
        weights: Weight of `task` and of every method.

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
        weights: Mapping[str, Weight],
    ) -> None:
        super().__init__()
        if methods and teacher is None:
            raise ShapeError(f"{', '.join(methods)} cannot work without a teacher; name one.")
        self.teacher = Teacher(teacher) if teacher is not None else None
        self.trainable = Trainable(student, methods, task)
        self.weights = dict(weights)
        self.replay: Callable[[Batch], Features] | None = None
        self.stored: Callable[[Tensor, Tensor], bool] = lambda index, view: False

    @property
    def student(self) -> Wrapped:
        """Network being trained."""
        return self.trainable.student

    def prepare(self, loader: Iterable[Any]) -> None:
        """Let every method measure the teacher once, before training.

        Args:
            loader: Yields `(images, labels)` or images; read once for each method that measures.
        """
        self.measure(lambda augmented: map(_as_batch, loader), num_images=_length(loader))

    def measure(self, batches: Callable[[bool], Iterator[Batch]], *, num_images: int) -> None:
        """Let every method measure the teacher on clean or on augmented images, as it asks.

        Args:
            batches: Given whether images are augmented, yields every training image once.
            num_images: Images of one pass.
        """
        if self.teacher is None:
            return
        outputs = _TrainingOutputs(self, self.teacher, batches, num_images)
        for method in self.trainable.methods.values():
            method.prepare(outputs)  # type: ignore[operator]

    def forward(
        self,
        images: Tensor | Sequence[Tensor] | Batch,
        labels: Tensor | Sequence[Mapping[str, Tensor]] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted losses by name; images and labels are those of `Batch.of`."""
        batch = images if isinstance(images, Batch) else Batch.of(images, labels)
        return self.trainable(batch, self.observe(batch))  # type: ignore[no-any-return]

    def observe(self, batch: Batch) -> Features | Teacher:
        """Return the teacher's features that methods read, from `replay` if it is set.

        Empty without methods. For a detector, the teacher itself: it is read at the locations at
        which the student is observed, later in the same step.
        """
        if self.teacher is None or not self.trainable.methods:
            return {}
        return self.replay(batch) if self.replay else self.observe_live(batch)

    def observe_live(self, batch: Batch) -> Features | Teacher:
        """Return the same as `observe`, never from `replay`."""
        if self.teacher is None or not self.trainable.methods:
            return {}
        if self.trainable.task.truth == "objects":
            return self.teacher
        return _only(self.teacher(batch), self.trainable.reads)

    def total(self, losses: Mapping[str, Tensor], epoch: int = 0) -> Float[Tensor, ""]:
        """Return the weighted sum of the losses, to call `backward` on; epochs count from 0."""
        return weighted_total(losses, {name: w.at(epoch) for name, w in self.weights.items()})


class _TrainingOutputs(TeacherOutputs):
    """Outputs of a distiller's teacher for the training images."""

    def __init__(
        self,
        distiller: Distiller,
        teacher: Teacher,
        batches: Callable[[bool], Iterator[Batch]],
        num_images: int,
    ) -> None:
        self._distiller, self._teacher = distiller, teacher
        self._batches, self._num_images = batches, num_images

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        return self._teacher.network.classifier_weight

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        return self._teacher.network.classifier_bias

    @property
    def num_images(self) -> int:
        return self._num_images

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        device = next(self._teacher.parameters()).device
        for batch in self._batches(augmented):
            # By the distiller: with a bank, the features that are measured are stored for training.
            batch = batch.to(device, torch.contiguous_format)
            teacher = self._distiller.observe(batch)
            if isinstance(teacher, Teacher):
                observation = teacher.observe_for_prepare(batch, self._distiller.student)
                yield observation.features, observation.batch
            else:
                yield teacher, batch

    def group(self, name: str) -> "_GroupOutputs":
        return _GroupOutputs(self, self._teacher.network, name)


class _GroupOutputs(TeacherOutputs):
    """Outputs of a teaching detector for one group of locations."""

    def __init__(self, whole: _TrainingOutputs, network: Wrapped, group: str) -> None:
        self._whole, self._group = whole, group
        self._groups, self._classifier = tuple(network.shapes.groups), network.group(group)

    @property
    def classifier_weight(self) -> Float[Tensor, "scores dim"]:
        return self._classifier.classifier_weight

    @property
    def classifier_bias(self) -> Float[Tensor, " scores"] | None:
        return self._classifier.classifier_bias

    @property
    def num_images(self) -> int:
        return self._whole.num_images

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        for features, batch in self._whole.batches(augmented=augmented):
            yield by_group(features, batch, self._groups)[self._group]

    def group(self, name: str) -> "_GroupOutputs":
        return self._whole.group(name)


def _as_batch(item: Any) -> Batch:
    if isinstance(item, Batch):
        return item
    images, labels = item if isinstance(item, tuple | list) else (item, None)
    return Batch.of(images, labels)


def _length(loader: Any) -> int:
    # A DataLoader has the length of its batches; the images are in its data set.
    return len(loader.dataset if hasattr(loader, "dataset") else loader)
