"""`Method`: the abstract base class of every distillation method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.schema import convert, hints_of
from understudy.errors import UnderstudyError
from understudy.features import ChangedImages, Extendable, Features, Shapes, TeacherOutputs
from understudy.methods._projectors import as_map


class Method(nn.Module, ABC):
    """One published loss on the features of student and teacher.

    A subclass is final. Its `__init__(student, teacher, *, hyper-parameters)` receives the
    `Shapes` of both networks, builds what is trained along with the student (projectors), and
    raises `ShapeError` if it does not apply to these networks. A method never owns a network, a
    weight, a loss on labels or an epoch counter. Types and limits of hyper-parameters (see
    `config/limits.py`) are checked at construction: other values raise `RecipeError`.
    """

    published_weight: ClassVar[float] = 1.0
    """Weight in the paper's CIFAR-100 experiments; the default if a recipe sets none."""

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Task → default hyper-parameters and `weight` for that task."""

    requires_softmax: ClassVar[bool] = False
    """True if the loss needs classes that exclude each other: a softmax over them, or exactly one
    class for each image. Refused for multi-label tasks and detectors with sigmoid scores."""

    requires_hard_labels: ClassVar[bool] = False
    """True if the loss needs exactly one class for each image. Refused with mixup, cutmix and soft
    labels."""

    requires_image_index: ClassVar[bool] = False
    """True if the method stores a vector or a label for each training image, by image index.
    Refused for detection, whose rows are new locations in every step."""

    trains_classifier: ClassVar[bool] = False
    """True if the loss reads the student's scores of classes: without labels nothing else trains
    the student's own classifier, and its scores are compared with the teacher's only then."""

    embeds: ClassVar[bool] = False
    """True if `extend` makes the student's penultimate feature as wide as the teacher's, which it
    can do for one width alone."""

    reuses_classifier: ClassVar[bool] = False
    """True if `extend` gives the student a head for the teacher's classifier."""

    unbounded_loss: bool = False
    """True if the loss has no finite minimum: it decreases as the norm of the student's features
    grows. Gradients of detectors are then clipped by default."""

    code_buffers: ClassVar[tuple[str, ...]] = ()
    """Buffers that `codes` depend on; empty if the method has no codes."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__init__ = _with_checked_values(cls.__init__)  # type: ignore[method-assign]
        if extend := cls.__dict__.get("extend"):
            setattr(cls, "extend", classmethod(_with_checked_values(extend.__func__)))  # noqa: B010

    def __init__(self, student: Shapes | None = None, teacher: Shapes | None = None) -> None:
        """Remember where patches lie among tokens, for a method that compares maps.

        Args:
            student: Shapes of the student; without them tokens are square grids.
            teacher: Shapes of the teacher.
        """
        super().__init__()
        self._student_grids = {} if student is None else student.grids
        self._teacher_grids = {} if teacher is None else teacher.grids
        self.prepared = True
        """False until `prepare` has run, for a method whose loss needs it."""
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Method":
        """Move tensors between devices, but keep full precision where networks are to lose it."""

        def in_full_precision(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            lost = result.dtype in (torch.float16, torch.bfloat16) and result.dtype != tensor.dtype
            return tensor.to(result.device) if lost else result

        super()._apply(in_full_precision, recurse)  # type: ignore[no-untyped-call]
        return self

    @classmethod
    def gives_scores(cls) -> bool:
        """Return True if the student's scores of classes mean something without any label."""
        return cls.trains_classifier or cls.reuses_classifier

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs; by default the penultimate feature and the logits.

        A bank must store what is named here, so that a method names no more than it uses.
        """
        return ("penultimate", "logits")

    @property
    def compares_classes(self) -> bool:
        """True if class k of the teacher must be class k of the data: the loss reads its logits."""
        return any(name.rpartition("/")[2] in ("logits", "scores") for name in self.reads)

    @property
    def dtype(self) -> torch.dtype | None:
        """Data type of the method's own parameters or else buffers; None if it has neither."""
        own = (x.dtype for x in (*self.parameters(), *self.buffers()) if x.is_floating_point())
        return next(own, None)

    def codes(self, teacher: Features) -> Features:
        """Encode what the loss needs of teacher features in few bytes.

        Rows `(batch, bytes)` of uint8, by name. A bank may store them instead of the features; the
        loss is bitwise the same if the teacher's features contain the codes under these names.
        """
        return {}

    def student_as_map(
        self, features: Mapping[str, Tensor], name: str
    ) -> Float[Tensor, "batch channels height width"]:
        """Return a feature of the student as a map; tokens are reshaped to their grid."""
        return as_map(features[name], self._student_grids.get(name))

    def teacher_as_map(
        self, features: Mapping[str, Tensor], name: str
    ) -> Float[Tensor, "batch channels height width"]:
        """Return a feature of the teacher as a map; tokens are reshaped to their grid."""
        return as_map(features[name], self._teacher_grids.get(name))

    def projected(self, student: Features) -> Features:
        """Return the projected student features, under the names of the teacher's features.

        Empty if the method has no projector.
        """
        return {}

    @classmethod
    def extend(cls, student: Extendable, teacher: Shapes, **hyper_parameters: Any) -> None:
        """Add layers to the student, in place, that stay in it after training; default: none."""

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Compute statistics of the teacher once before training, and store them in buffers.

        A method whose loss needs them sets `prepared` to False at construction and to True here.
        """

    def second_images(self, batch: Batch) -> ChangedImages | None:
        """Return changed images for a second pass of the student in the step; default: no pass.

        The loss gets the student's features of them, and what is known of the change, under
        `second/…`. Random numbers come from torch's generator, which a step has seeded.
        """
        return None

    @abstractmethod
    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; features are float32 or float64, autocast is off."""

    # mypy sees `nn.Module.forward` as an attribute, which cannot be final.
    @final  # type: ignore[misc]
    def forward(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Compute the loss in full precision, under any autocast and for features of any dtype.

        Raises:
            UnderstudyError: `prepare` has not run.
        """
        return self.in_full_precision(self.loss, student, teacher, batch)

    @final
    def in_full_precision(
        self,
        function: Callable[[Features, Features, Batch], Tensor],
        student: Features,
        teacher: Features,
        batch: Batch,
    ) -> Tensor:
        """Call a function of this method as `forward` calls `loss`.

        Raises:
            UnderstudyError: `prepare` has not run.
        """
        if not self.prepared:
            raise UnderstudyError(
                f"{type(self).__name__} must measure the teacher before the first loss; call "
                "`prepare` of the distiller with the training images, or load a saved state."
            )
        with torch.autocast(batch.images.device.type, enabled=False):
            # Detached here, so that no method can send a gradient into the teacher.
            target = {name: x.detach() for name, x in teacher.items()}
            doubles = any(x.dtype == torch.float64 for f in (student, teacher) for x in f.values())
            dtype = self.dtype or torch.float64 if doubles else None
            return function(_FullPrecision(student, dtype), _FullPrecision(target, dtype), batch)


def _with_checked_values(function: Callable[..., None]) -> Callable[..., None]:
    """Wrap a function to refuse hyper-parameters out of their declared types and limits."""

    @wraps(function)
    def checked(self: "Method | type[Method]", *args: Any, **hyper_parameters: Any) -> None:
        name = (self if isinstance(self, type) else type(self)).__name__
        hints = hints_of(function)
        for key, value in hyper_parameters.items():
            hyper_parameters[key] = convert(hints.get(key, Any), value, f"{name}.{key}")
        function(self, *args, **hyper_parameters)

    return checked


def _restored(method: nn.Module, incompatible_keys: object) -> None:
    setattr(method, "prepared", True)  # noqa: B010 - mypy takes it for a submodule


class _FullPrecision(dict[str, Tensor]):
    """Features in full precision, converted on access: a loss reads only a few of the maps.

    Args:
        features: Features by name.
        dtype: Data type of floats, where networks differ in it or from the method; None keeps it.
    """

    def __init__(self, features: Features, dtype: torch.dtype | None = None) -> None:
        super().__init__(features)
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        x = super().__getitem__(name)
        if self._dtype is not None and x.is_floating_point():
            return x.to(self._dtype)
        return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
