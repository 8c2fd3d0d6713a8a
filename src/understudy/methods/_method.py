"""What a method is: the contract every file in this folder keeps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar, Literal, final, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import RecipeError, UnderstudyError, suggestion
from understudy.features import Extendable, Features, Shapes, TeacherOutputs


class Method(nn.Module, ABC):
    """One published way to turn the features of both networks into one loss.

    A subclass is final. Its `__init__(student, teacher, *, hyper-parameters)` receives the
    `Shapes` of both networks, builds whatever is trained beside the student (projectors), and
    raises `ShapeError` there if it cannot work. It never owns a network, a weight, a label loss
    or an epoch counter. A hyper-parameter declared as a `Literal` is one of its values, or the
    construction fails with `RecipeError`.
    """

    published_weight: ClassVar[float] = 1.0
    """Weight in the paper's CIFAR-100 experiments; the default where a recipe names none."""

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Task → hyper-parameters and `weight` for it, where a recipe says nothing else."""

    requires_softmax: ClassVar[bool] = False
    """True if the loss has no meaning but for classes that exclude each other: for a softmax over
    them, or for the one class of an image."""

    requires_hard_labels: ClassVar[bool] = False
    """True if the loss asks which one class an image has, which mixed images cannot say."""

    requires_image_index: ClassVar[bool] = False
    """True if something is kept for every training image, found by its number."""

    unbounded_loss: bool = False
    """True if the loss falls for ever as the student's features grow, as nothing holds them."""

    code_buffers: ClassVar[tuple[str, ...]] = ()
    """Buffers on which `codes` depend; empty where a method has none."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__init__ = _with_checked_choices(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.prepared = True
        """False as long as the loss needs a `prepare` that has not happened."""
        self.register_load_state_dict_post_hook(_restored)  # type: ignore[no-untyped-call]

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the teacher's features that the loss needs."""
        return ("penultimate", "logits")

    def codes(self, teacher: Features) -> Features:
        """All that the loss asks of some of the teacher's features, in few bytes.

        Rows `(batch, bytes)` of uint8 by name. A bank may store them; the loss gives the same
        number, to the bit, where the teacher's features contain them under these names.
        """
        return {}

    def projected(self, student: Features) -> Features:
        """What the loss compares with the teacher's features of the same names.

        Only where a projector lies between; empty where a method has none.
        """
        return {}

    @classmethod
    def extend(cls, student: Extendable, teacher: Shapes, **hyper_parameters: Any) -> None:
        """Add to the student, in place, the layers that stay in it; most methods add none."""

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the teacher once before training; what is measured is kept in buffers.

        A method whose loss needs this sets `prepared` to False at construction, to True here.
        """

    @abstractmethod
    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; features arrive in float32 or float64, autocast is off."""

    # mypy takes the forward of `nn.Module` for an attribute, which nothing may seal.
    @final  # type: ignore[misc]
    def forward(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The loss in full precision, whatever autocast is active and however features arrive.

        Raises:
            UnderstudyError: The method has not measured the teacher.
        """
        if not self.prepared:
            raise UnderstudyError(
                f"{type(self).__name__} must measure the teacher before the first loss; call "
                "`prepare` of the distiller with the training images, or load a saved state."
            )
        with torch.autocast(batch.images.device.type, enabled=False):
            target = {name: x.detach() for name, x in teacher.items()}
            return self.loss(_FullPrecision(student), _FullPrecision(target), batch)


def _with_checked_choices(init: Callable[..., None]) -> Callable[..., None]:
    """The same `__init__`, refusing values that a `Literal` does not list."""

    @wraps(init)
    def checked(self: Method, *args: Any, **hyper_parameters: Any) -> None:
        hints = get_type_hints(init)
        for name, value in hyper_parameters.items():
            options = get_args(hints[name]) if get_origin(hints.get(name)) is Literal else (value,)
            if value not in options:
                near = suggestion(str(value), options)
                raise RecipeError(
                    f"{name!r} of {type(self).__name__} is {value!r}{near}; "
                    f"it can be: {', '.join(options)}."
                )
        init(self, *args, **hyper_parameters)

    return checked


def _restored(method: nn.Module, incompatible_keys: object) -> None:
    setattr(method, "prepared", True)  # noqa: B010 - mypy takes it for a submodule


class _FullPrecision(dict[str, Tensor]):
    """Features in full precision; maps that a loss does not ask for are not worth converting."""

    def __getitem__(self, name: str) -> Tensor:
        x = super().__getitem__(name)
        return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
