"""A user's own modules as student and teacher of a training loop of the user's own."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from understudy.errors import NetworkError, ShapeError
from understudy.models import detection
from understudy.models.base import Wrapped
from understudy.models.layout_size import layout_size
from understudy.models.network import Network
from understudy.models.preprocessing import Input, as_given
from understudy.models.quantised import refuse_student
from understudy.tasks import Task


def wrap(
    module: Any,
    role: str,
    task: Task,
    example: Tensor | None,
    contract: Input | None,
    taps: Mapping[str, str] | None = None,
    classifier: str | None = None,
) -> Wrapped:
    """Return a module as a network or detector; one that is wrapped already as it is.

    Args:
        module: The user's module.
        role: What it is to be, for errors: `student`, `teacher`, or `teacher dino` of several.
        task: Says whether it is a detector.
        example: Images as it takes them; not needed for detectors.
        contract: Size and normalisation of images in [0, 1]; None for images as they are given.
        taps: Feature name → module path, as for `Network`.
        classifier: Path of the classifier, as for `Network`.

    Raises:
        NetworkError: It is no module, or compiled, scripted, exported or made parallel, or has no
            values yet.
        ShapeError: There is no example, or it is no tensor of images.
    """
    _check_module(module, role)
    _check_values(module, role)
    if contract is not None and (isinstance(module, Wrapped) or task.truth == "objects"):
        raise NetworkError(
            f"'{role.split()[0]}_input' is for a plain module that classifies images, but the "
            f"{role} is a {type(module).__name__}, which has an input contract of its own: leave "
            "it out."
        )
    chosen = bool(taps) or classifier is not None
    if chosen and (isinstance(module, Wrapped) or task.truth == "objects"):
        raise NetworkError(
            f"'taps' and 'classifier' are for a plain module that classifies images, but the "
            f"{role} is a {type(module).__name__}: leave them out, or give them to its Network."
        )
    if isinstance(module, Wrapped):
        return module
    if task.truth == "objects":
        _check_full_precision(module, role)
        return detection.wrap(module)
    images = _checked_example(example)
    size: tuple[int, int] = (images.shape[2], images.shape[3])
    if contract is not None:
        dry_size = None if contract.size else size
    else:
        contract, dry_size = as_given(images.shape[1]), layout_size(module, images.shape[1], size)
    return Network(module, input=contract, example_size=dry_size, taps=taps, classifier=classifier)


def check_roles(teachers: Iterable[str], **choices: Mapping[str, object]) -> None:
    """Refuse choices for a network that is neither the student nor a teacher.

    Args:
        teachers: `teacher`, or the names of several.
        choices: Keyword of `wire` → its value.

    Raises:
        NetworkError: A key is another one, or a choice is no mapping.
    """
    roles = ["student", *teachers]
    for name, choice in choices.items():
        others: list[object] = [choice]
        if isinstance(choice, Mapping):
            others = [key for key in choice if key not in roles]
        if others:
            raise NetworkError(
                f"'{name}' of wire is by network: give {name}={{'student': …}} or "
                f"{' or '.join(f'{{{role!r}: …}}' for role in roles[1:])}, not {others[0]!r}."
            )


def check_inputs(inputs: Mapping[str, object], teachers: Mapping[str, object]) -> None:
    """Refuse an input contract of a teacher that is not there.

    Raises:
        NetworkError: A name is none of the teachers', or one contract is given for several.
    """
    for name, contract in inputs.items():
        if contract is not None and name not in teachers:
            own = dict.fromkeys(teachers, "Input(…)") if any(teachers) else "Input(…)"
            raise NetworkError(
                f"'teacher_input' is {f'for the teacher {name!r}' if name else 'for one teacher'}, "
                f"which is not there: give teacher_input={own}."
            )


def check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a student and a teacher that share parameters: freezing one would freeze the other.

    Shared statistics of a normalisation are refused as well: training the student changes them.

    Raises:
        NetworkError: A parameter or running statistic of one is also the other's.
    """
    theirs = {key for parameter in teacher.parameters() for key in _keys(parameter)}
    shared = [name for name, p in student.named_parameters() if not theirs.isdisjoint(_keys(p))]
    if not shared:
        _check_statistics_apart(student, teacher)
        return
    count = len(list(student.parameters()))
    what = "are one module" if len(shared) == count else f"share {len(shared)} of its parameters"
    raise NetworkError(
        f"Student and teacher {what} ({shared[0]}, …), and the teacher is frozen: give a copy of "
        "it as the teacher, `copy.deepcopy(module)`."
    )


def _check_statistics_apart(student: nn.Module, teacher: nn.Module) -> None:
    theirs = {key for _, buffer in _statistics(teacher) for key in _keys(buffer)}
    for name, buffer in _statistics(student):
        if not theirs.isdisjoint(_keys(buffer)):
            raise NetworkError(
                f"Student and teacher share the statistics {name} of a normalisation, which "
                "training the student would change in the teacher: give a copy of it as the "
                "teacher, `copy.deepcopy(module)`."
            )


def _statistics(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return name and values of the running statistics of a module."""
    named = module.named_buffers()
    return [pair for pair in named if pair[0].endswith(("running_mean", "running_var"))]


def check_finite(teacher: Wrapped) -> None:
    """Refuse a teacher with NaN or infinity in its weights or statistics.

    Raises:
        NetworkError: It has one.
    """
    for name, tensor in (*teacher.module.named_parameters(), *_statistics(teacher.module)):
        if tensor.is_floating_point() and not _finite(tensor):
            raise NetworkError(
                f"The teacher {teacher.name} has NaN or infinity in {name} and would give NaN: "
                "check teacher.weights."
            )


def _finite(tensor: Tensor) -> bool:
    """Return whether all values are finite, without a copy of them."""
    if not tensor.numel():
        return True
    # Neither has a type of 8 bits an order, nor all of them a test; both keep NaN.
    values = tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()
    return all(bool(end.isfinite()) for end in values.aminmax())


def _keys(parameter: Tensor) -> set[tuple[str, int]]:
    """Return what identifies a parameter, and its memory, which another may be a view of."""
    pointer = parameter.untyped_storage().data_ptr() if parameter.device.type != "meta" else 0
    return {("id", id(parameter))} | ({("memory", pointer)} if pointer else set())


def _check_module(module: Any, role: str) -> None:
    if not isinstance(module, nn.Module):
        raise NetworkError(
            f"The {role} is {'None' if module is None else f'a {type(module).__name__}'}: give a "
            f"torch module{' to train' if role == 'student' else ' to learn from'}."
        )
    for path, inner in module.named_modules():
        place = f"its part '{path}'" if path else f"the {role}"
        if hasattr(inner, "_orig_mod") or getattr(inner, "_compiled_call_impl", None) is not None:
            raise NetworkError(
                f"The {role} cannot be read by hooks, as {place} is compiled: give the plain "
                "module, and compile what trains afterwards, by `distiller.trainable.compile()`."
            )
        if isinstance(inner, DataParallel | DistributedDataParallel):
            raise NetworkError(
                f"The {role} cannot be read by hooks, as {place} is a {type(inner).__name__}: give "
                "the module inside of it, and wrap `distiller.trainable` afterwards."
            )
        if isinstance(inner, torch.jit.ScriptModule):
            raise NetworkError(
                f"The {role} cannot be read by hooks, as {place} is a TorchScript module: give the "
                "module that it was made from."
            )
        if "eval" in vars(inner):  # as torch.export sets it, to a function that raises an error
            raise NetworkError(
                f"The {role} cannot be read by hooks, as {place} was made by torch.export: give "
                "the module that was exported."
            )


def _check_values(module: nn.Module, role: str) -> None:
    """Refuse a module whose parameters have no values or shapes yet."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise NetworkError(
                f"The {role} has a lazy layer whose {name} has no shape yet: call the module once "
                "on some images before."
            )
        if tensor.is_meta:
            raise NetworkError(
                f"The {role} is on the device 'meta', where {name} has no values: build it on the "
                "CPU, or call `to_empty` and load its weights before."
            )


def check_trained(student: nn.Module) -> None:
    """Refuse a student of which nothing would be trained.

    Raises:
        NetworkError: None of its parameters takes a gradient, or it has quantised layers.
    """
    refuse_student(student)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise NetworkError(
            "No parameter of the student takes a gradient, so that it would not be trained: call "
            "`student.requires_grad_()` before, or give another student."
        )


def _check_full_precision(detector: nn.Module, role: str) -> None:
    lower = {p.dtype for p in detector.parameters()} & {torch.float16, torch.bfloat16}
    if lower:
        kind = str(lower.pop()).removeprefix("torch.")
        raise NetworkError(
            f"The {role} is a detector with weights in {kind}, which would round its boxes: "
            "give it in full precision, `detector.float()`, and use torch.autocast."
        )


def _checked_example(example: Tensor | None) -> Tensor:
    if example is None:
        raise ShapeError(
            "Features are discovered in a forward pass: give some images as `example`."
        )
    if not isinstance(example, Tensor) or example.ndim != 4:
        shape = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ShapeError(
            f"`example` must be a batch of images (batch, channels, height, width), not {shape}."
        )
    return example
