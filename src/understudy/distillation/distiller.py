"""Student, frozen teacher, methods and task: one forward pass, every loss by name."""

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
    """Coefficient of one loss; rises linearly over the first `warmup_epochs`.

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
        """The weight in an epoch counted from 0."""
        if not self.warmup_epochs:
            return self.value
        return self.value * min(1.0, (epoch + self.warmup_counts_from) / self.warmup_epochs)


@final
class Teacher(nn.Module):
    """A frozen network: always in evaluation mode, never part of a gradient."""

    def __init__(self, network: Wrapped) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.precision: torch.dtype | None = None
        """Arithmetic of the forward pass, if not that of the weights."""
        self._at: FeatureReader | None = None
        self._settled = False

    def settle(self, precision: torch.dtype | None) -> None:
        """Compute in a precision, with weights that from now on stay as and where they are."""
        self.precision, self._at, self._settled = precision, None, True

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever the module around it does."""
        return super().train(False)

    # `no_grad`, not `inference_mode`: a squared error keeps the teacher's tensor for its backward.
    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Features of whole images."""
        with self._autocast(images.device.type):
            return self.network.observe(Batch.of(images)).features

    @torch.no_grad()
    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Features at the locations where a student was observed; see `Wrapped.at`."""
        with self._autocast(next(self.parameters()).device.type):
            if self._at is None:
                network = self.network
                self._at = network.frozen_reader(self.precision) if self._settled else network.at
            return self._at(locations, reads)

    @torch.no_grad()
    def observe_for_prepare(self, batch: Batch, student: Wrapped) -> Observation:
        """Features at the locations where the teacher itself would look."""
        with self._autocast(batch.images.device.type):
            return self.network.observe_for_prepare(batch, student)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Features:
        """What the teacher says of some images."""
        with self._autocast(batch.images.device.type):
            return self.network.outputs(batch)

    def _autocast(self, device: str) -> torch.autocast:
        return torch.autocast(device, dtype=self.precision, enabled=self.precision is not None)


@final
class Trainable(nn.Module):
    """All that is trained: the student and what the methods train beside it.

    One ordinary module whose forward pass returns the losses, so that
    DistributedDataParallel, torch.compile and optimizers meet nothing special.
    """

    def __init__(self, student: Wrapped, methods: Mapping[str, Method], task: Task) -> None:
        super().__init__()
        self.student = student
        self.methods = nn.ModuleDict(methods)
        self.task = task

    @property
    def reads(self) -> set[str]:
        """Names of the teacher's features that a method asks for."""
        return {name for method in self.methods.values() for name in cast(Method, method).reads}

    @property
    def unbounded_loss(self) -> bool:
        """Whether a detector's features may grow for ever, until its own losses overflow."""
        kinds = (cast(Method, method) for method in self.methods.values())
        return self.task.truth == "objects" and any(kind.unbounded_loss for kind in kinds)

    def forward(self, batch: Batch, teacher: Features | Teacher) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name: those on labels, if there are any, and every method's.

        Those on labels are `task`, or several called `task/…` where the student has its own.

        Args:
            batch: Some images.
            teacher: Features of the teacher; or the teacher, to be read where the student looks.
        """
        with span("forward/student"):
            seen = (
                self.student.observe(batch)
                if self.methods
                else self.student.observe_for_task(batch)
            )
        task = self.task.loss(seen.features, batch)
        losses = dict(seen.losses) if task is None else {"task": task}
        if isinstance(teacher, Teacher) and seen.locations is not None:
            with span("forward/teacher"):
                asked = self.reads
                teacher = _asked(teacher.at(seen.locations, asked), asked)
        assert not isinstance(teacher, Teacher)
        for label, method in self.methods.items():
            with span(f"forward/{label}"):
                losses[label] = method(seen.features, _addressed(teacher, label), seen.batch)
        return losses


def _asked(features: Features, reads: Collection[str]) -> Features:
    """Those of some names: other maps would fill memory until the student's step is done."""
    return {name: x for name, x in features.items() if name in reads}


def _addressed(teacher: Features, label: str) -> Features:
    """The features, and what is stored for one method under the names it knows it by."""
    return teacher | of_group(teacher, label)


@final
class Distiller(nn.Module):
    """Student and teacher in one pass: `distiller(images, labels)` gives every loss by name.

    Args:
        student: Network or detector to be trained.
        teacher: Network or detector to learn from; None for a control.
        methods: Label → method.
        task: What labels ask of the student.
        weights: Weight of `task` and of every method.
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
        """Gives the teacher's features of a batch in its stead: from a bank.

        What it stores for one method alone is named `<label>/<name>`.
        """
        self.stored: Callable[[Tensor, Tensor], bool] = lambda index, view: False
        """Whether `replay` needs no images to give the features of some views."""

    @property
    def student(self) -> Wrapped:
        """The network being trained."""
        return self.trainable.student

    def prepare(self, loader: Iterable[Any]) -> None:
        """Let every method measure the teacher once, before training.

        Args:
            loader: Yields `(images, labels)` or images; read once for each method that measures.
        """
        self.measure(lambda augmented: map(_as_batch, loader), num_images=_length(loader))

    def measure(self, batches: Callable[[bool], Iterator[Batch]], *, num_images: int) -> None:
        """As `prepare`, where the images of a clean and of an augmented pass are known apart."""
        if self.teacher is None:
            return
        outputs = _Outputs(self, self.teacher, batches, num_images)
        for method in self.trainable.methods.values():
            method.prepare(outputs)  # type: ignore[operator]

    def forward(
        self,
        images: Tensor | Sequence[Tensor] | Batch,
        labels: Tensor | Sequence[Mapping[str, Tensor]] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name; images and labels are those of `Batch.of`."""
        batch = images if isinstance(images, Batch) else Batch.of(images, labels)
        return self.trainable(batch, self.observe(batch))  # type: ignore[no-any-return]

    def observe(self, batch: Batch) -> Features | Teacher:
        """Features of the teacher that a method asks for; none if there is none.

        Where two networks meet at places in the images, the teacher itself, to be read there.
        """
        if self.teacher is None or not self.trainable.methods:
            return {}
        return self.replay(batch) if self.replay else self.live(batch)

    def live(self, batch: Batch) -> Features | Teacher:
        """As `observe`, always from the teacher itself."""
        if self.teacher is None or not self.trainable.methods:
            return {}
        if self.trainable.task.truth == "objects":
            return self.teacher
        return _asked(self.teacher(batch.images), self.trainable.reads)

    def total(self, losses: Mapping[str, Tensor], epoch: int = 0) -> Float[Tensor, ""]:
        """Weighted sum of the losses in an epoch counted from 0: what to call `backward` on."""
        weights = {name: self.weights[name.partition("/")[0]].at(epoch) for name in losses}
        return torch.stack([weights[name] * x for name, x in losses.items()]).sum()


class _Outputs(TeacherOutputs):
    """What a distiller's teacher gives for the training images."""

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
            batch = batch.to(device, torch.contiguous_format)
            found = self._distiller.observe(batch)
            if isinstance(found, Teacher):
                seen = found.observe_for_prepare(batch, self._distiller.student)
                yield seen.features, seen.batch
            else:
                yield found, batch

    def group(self, name: str) -> "_GroupOutputs":
        return _GroupOutputs(self, self._teacher.network, name)


class _GroupOutputs(TeacherOutputs):
    """The same of one group of locations."""

    def __init__(self, whole: _Outputs, network: Wrapped, group: str) -> None:
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
    return len(loader.dataset if hasattr(loader, "dataset") else loader)
