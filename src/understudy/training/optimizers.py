"""Optimizers by name: SGD and AdamW of torch as in the papers, and any of timm's factory."""

from collections.abc import Mapping
from typing import Any

from timm.models import group_parameters
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from understudy.config.recipe import Training
from understudy.distillation.distiller import Trainable
from understudy.errors import RecipeError, suggestion

OF_TIMM = "timm:"
"""Prefix of the optimizers of timm, which those need that torch has under the same name."""
_OF_TORCH = ("sgd", "adamw")
_WRAPPER = "lookahead_"
"""Prefix by which timm wraps any of its optimizers."""
_OWN_KEYS = ("lr", "weight_decay", "momentum", "nesterov", "fused", "capturable")
"""Arguments of optimizers that are keys of `training`, or follow from the device."""

Group = dict[str, Any]
"""Parameters that share their rate and weight decay, as optimizers of torch take them."""


def make_optimizer(trainable: nn.Module, training: Training) -> Optimizer:
    """Return the recipe's optimizer of all parameters that are not frozen.

    Args:
        trainable: Student and methods; of these, all parameters are trained at one rate.
        training: Names the optimizer. Nothing in it is `auto`.

    Raises:
        RecipeError: There is no such optimizer, it lacks a package, or it takes no such option.
    """
    parameters = _groups(trainable, training)
    options = _options(training)
    if training.optimizer not in _OF_TORCH:
        return _of_timm(parameters, training, options)
    try:
        if training.optimizer == "adamw":
            return AdamW(
                parameters,
                lr=training.lr,
                weight_decay=training.weight_decay,
                fused=True,
                # Counts steps on the device, as a CUDA graph needs.
                capturable=next(trainable.parameters()).is_cuda,
                **options,
            )
        return SGD(
            parameters,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.nesterov,
            weight_decay=training.weight_decay,
            fused=True,
            **options,
        )
    except (TypeError, ValueError) as error:
        raise _refused(training, error) from error


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group, scaled where the recipe has a `layer_decay`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def fits_a_graph(optimizer: Optimizer) -> bool:
    """Return True if steps can be CUDA graphs: no number of a step may lie on the host."""
    one_rate = all("lr_scale" not in group for group in optimizer.param_groups)
    return one_rate and type(optimizer) in (SGD, AdamW)


def _groups(trainable: nn.Module, training: Training) -> list[nn.Parameter] | list[Group]:
    """Return the parameters in groups of equal rate and weight decay; plainly, if all are equal."""
    named = {name: p for name, p in trainable.named_parameters() if p.requires_grad}
    if training.decay_norms and training.layer_decay is None:
        return list(named.values())
    scales, undecayed = _layer_scales(trainable, training), _without_decay(trainable)
    groups: dict[tuple[float, bool], Group] = {}
    for name, parameter in named.items():
        decayed = training.decay_norms or (parameter.ndim > 1 and name not in undecayed)
        key = scales.get(name, 1.0), decayed
        decay = training.weight_decay if decayed else 0.0
        group = groups.setdefault(key, {"params": [], "weight_decay": decay})
        group["params"].append(parameter)
        if training.layer_decay is not None:
            group["lr_scale"] = key[0]
    return list(groups.values())


def _without_decay(trainable: nn.Module) -> set[str]:
    """Return the parameters that a network of timm wants without weight decay: positions."""
    prefix, module = _student_module(trainable)
    names = module.no_weight_decay() if hasattr(module, "no_weight_decay") else ()
    return {f"{prefix}{name}" for name in names}


def _layer_scales(trainable: nn.Module, training: Training) -> dict[str, float]:
    """Return the factor of the rate of each parameter of the student; 1 at the top.

    Raises:
        RecipeError: The student does not tell the order of its layers.
    """
    if training.layer_decay is None:
        return {}
    prefix, module = _student_module(trainable)
    if not hasattr(module, "group_matcher"):
        raise RecipeError(
            "training.layer_decay needs a student that tells the order of its layers, as those of "
            "timm do (student.name timm:NAME): leave it out for this one."
        )
    layers: Mapping[str, int] = group_parameters(
        module, module.group_matcher(coarse=False), reverse=True
    )
    top = max(layers.values())
    return {f"{prefix}{name}": training.layer_decay ** (top - n) for name, n in layers.items()}


def _student_module(trainable: nn.Module) -> tuple[str, Any]:
    """Return the student's plain module, and the prefix of the names of its parameters."""
    if not isinstance(trainable, Trainable):
        return "", trainable
    module = trainable.student.module
    path = next(name for name, each in trainable.named_modules() if each is module)
    return f"{path}.", module


def _options(training: Training) -> dict[str, Any]:
    """Return the further arguments of the optimizer; lists as tuples.

    Raises:
        RecipeError: One is a key of its own.
    """
    if taken := sorted(set(_OWN_KEYS) & training.optimizer_options.keys()):
        raise RecipeError(
            f"training.optimizer_options.{taken[0]} is set apart from these options: by the key "
            f"training.{taken[0]}, or by the device."
        )
    options = training.optimizer_options.items()
    return {key: tuple(x) if isinstance(x, list) else x for key, x in options}


def _of_timm(
    parameters: list[nn.Parameter] | list[Group], training: Training, options: dict[str, Any]
) -> Optimizer:
    name = training.optimizer.removeprefix(OF_TIMM).lower()
    inner = name.removeprefix(_WRAPPER)
    if inner not in list_optimizers():
        near = suggestion(inner, [*_OF_TORCH, *list_optimizers()])
        raise RecipeError(
            f"There is no optimizer {training.optimizer!r}{near}: training.optimizer is sgd, adamw "
            "or one of timm's, which timm.optim.list_optimizers() lists."
        )
    if get_optimizer_info(inner).second_order:
        raise RecipeError(
            f"The optimizer {training.optimizer} needs second derivatives, which losses and "
            "mixed precision do not give: choose another, such as adamw."
        )
    if inner.startswith("kron"):
        raise RecipeError(
            f"The optimizer {training.optimizer} draws random numbers that it does not save, so "
            "that a run could not be continued exactly: choose another, such as timm:muon."
        )
    try:
        made: Optimizer = create_optimizer_v2(
            parameters,
            opt=name,
            lr=training.lr,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
            **options,
        )
    # Packages that are missing are asserted, some of them.
    except (TypeError, ValueError, ImportError, AssertionError, RuntimeError) as error:
        raise _refused(training, error) from error
    return made


def _refused(training: Training, error: Exception) -> RecipeError:
    reason = " ".join(str(error).split()).rstrip(".") or "it is not installed"
    return RecipeError(
        f"The optimizer {training.optimizer} cannot be made: {reason}. Correct "
        "training.optimizer_options, or choose another training.optimizer."
    )
