"""Values of a recipe's keys that are `auto`: chosen for its images and its student, with reasons.

Which keys may be `auto` stands in their types (`OrAuto` in `config/limits.py`). They are resolved
once, before a run or a comparison begins: `recipe.yaml` holds the values, `environment.json` the
reasons, and what is continued keeps those it began with (`adopted`).

**Epochs.** What a network needs is optimizer steps, and steps that see new images are worth more
than steps that see the same ones again. So the number of steps grows with the number N of images,
but slower than N: epochs = 240 · (3000 / N)^(1/3). That is 240 for 3,000 images (papers on small
sets train 200 to 300), 94 for 50,000, and 32 for the 1.28 million of ImageNet (papers: 90 to 300
for the last percent). From weights, a student is near its end from the start: a quarter of that. At
least 1,000 steps (250 from weights), however few the batches of an epoch are.

**Validation images.** Held out only of 10,000 images or more. A tenth of 3,000 photographs cost 3
to 6 points of accuracy, and so few choose an epoch by chance (docs/log.md, 2026-11-28); a rate that
falls to 0 makes the last epoch the best one or nearly so.

**Transforms.** TrivialAugment (Müller and Hutter, ICCV 2021) behind crop and mirror for fewer than
10,000 images and a student from random weights: the teacher answers each view, so that stronger
views are further questions (docs/log.md, 2026-11-28: three seeds of 3,000 photographs). Not where
fewer than 60 epochs are stated, in which a small student does not get over them.

**Optimizer and rate.** A convolutional network from random weights: SGD with rate 0.05 for a batch
of 64 and in proportion to the batch (Goyal et al., arXiv 1706.02677), weight decay 5e-4 on
everything, as in the papers of `_papers.yaml`. Networks with attention, layer norms or depthwise
convolutions, detectors, and whatever starts from weights: AdamW, whose rate grows with the root of
the batch (Malladi et al., arXiv 2205.10287), weight decay 0.05 except on norms and biases, as in
the recipes of ConvNeXt and DeiT. A rate of at least 0.005 that the recipe states is one for SGD.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, final

from torch import nn

from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe, Training
from understudy.config.schema import leaves, may_be_auto
from understudy.errors import RecipeError
from understudy.models.base import Wrapped

if TYPE_CHECKING:
    from understudy.experiment.images import Images

OPEN = tuple(path for path, hint, _ in leaves(Recipe) if may_be_auto(hint))
"""Keys that may be `auto`."""

_FEWEST, _FEWEST_PER_CLASS = 10_000, 10
"""Training images, and of each class, below which none are held out."""
_SHARE, _SHARE_AS_TEST, _MOST = 0.1, 0.2, 10_000
"""Share that is held out; the same where it stands in for a test split; most images held out."""

_EPOCHS, _IMAGES, _FEWER = 240, 3000, 4
"""Epochs of so many images, and what they are divided by for a student with weights."""
_LEAST_STEPS = 1000
_LEAST_EPOCHS = 60
"""Fewest epochs in which stronger views were seen to help (docs/log.md, 2026-11-28)."""
_RATE_OF_SGD = 0.005
"""Smallest rate that is taken for one of SGD: AdamW diverges at it, or nearly so."""
_SMALL_SIDE = 64
"""Largest side of images of which a padded crop is still most of what there is."""

Reasons = Mapping[str, str]
"""Dotted key → why it has its value."""


@final
@dataclass(frozen=True)
class Choice:
    """A value, and why."""

    value: Any
    reason: str


def unresolved(recipe: Recipe) -> tuple[str, ...]:
    """Return the keys of a recipe that are `auto`."""
    return tuple(path for path in OPEN if _get(recipe, path) == AUTO)


def adopted(recipe: Recipe, before: Recipe) -> Recipe:
    """Return a recipe whose `auto` keys have the values that a run before has resolved them to.

    Args:
        recipe: What is asked for.
        before: Recipe of a run of the same, which began.
    """
    for path in unresolved(recipe):
        recipe = _put(recipe, path, _get(before, path))
    return recipe


def resolve(recipe: Recipe, images: "Images", student: Wrapped) -> tuple[Recipe, dict[str, str]]:
    """Choose all that is `auto`.

    Args:
        recipe: Its other keys stay as they are.
        images: Its images.
        student: Its student, as it will be trained.

    Returns:
        The recipe without an `auto` of `OPEN`, and the reason for each key that was.

    Raises:
        RecipeError: Nothing is known of the optimizer that the recipe names.
    """
    recipe, reasons = for_images(recipe, images)
    recipe, others = _filled(recipe, _for_training(recipe, len(images.train), student))
    return recipe, reasons | others


def for_images(recipe: Recipe, images: "Images") -> tuple[Recipe, dict[str, str]]:
    """Choose the keys of `data`, which depend on the images; later ones on those before."""
    validation = images.held_out or Choice(0.0, "as the images were read")
    choices = {"data.validation": validation, "data.augment": _augment(recipe, images)}
    recipe, reasons = _filled(recipe, choices)
    recipe, others = _filled(recipe, {"data.transforms": _transforms(recipe, len(images.train))})
    return recipe, reasons | others


def held_out(recipe: Recipe, images: int, classes: int, *, validation: bool, test: bool) -> Choice:
    """Choose the share of the training images that is held out for validation.

    Args:
        recipe: Its `data.validation` is `auto`.
        images: Number of training images.
        classes: Number of their classes; 0 where they are not known.
        validation: The data set has a validation split of its own.
        test: It has a test split.
    """
    if validation:
        return Choice(0.0, "the images have a validation split of their own")
    if recipe.training.best == "test":
        return Choice(0.0, "training.best is test")
    if not test:
        share = _rounded_share(_SHARE_AS_TEST, images)
        return Choice(share, "there is no split but that for training, and this part measures")
    share = _rounded_share(_SHARE, images)
    if recipe.training.patience is not None:
        return Choice(share, "training.patience ends training by validation images")
    if images < _FEWEST or images < _FEWEST_PER_CLASS * classes:
        return Choice(0.0, f"with {images:,} images, all are needed for training")
    return Choice(share, "there is no validation split to choose the best epoch on")


def say(reasons: Reasons, values: Mapping[str, Any]) -> list[str]:
    """Return what was chosen in lines, keys of the same reason in one.

    Args:
        reasons: Why each key was chosen.
        values: Value of each of these keys.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for path, reason in reasons.items():
        group, _, key = path.rpartition(".")
        groups.setdefault((group, reason), []).append(f"{key} {_shown(values[path])}")
    lines = [
        f"  {group}: {', '.join(chosen)} ({reason})" for (group, reason), chosen in groups.items()
    ]
    heading = "Chosen, as nothing was set (a flag such as --training.epochs 30 sets a value):"
    return [heading, *lines] if lines else []


def _rounded_share(share: float, images: int) -> float:
    return float(f"{min(share, _MOST / images):.2g}")


def _augment(recipe: Recipe, images: "Images") -> Choice:
    source = images.train
    if recipe.task == "detection":
        return Choice("flip", "boxes stay whole")
    if source.pixels is not None and max(source.pixels.shape[2:]) <= _SMALL_SIDE:
        return Choice("crop_flip", "the images are small")
    if recipe.task == "multilabel":
        return Choice("squash_flip", "a crop of a photograph may lose some of its classes")
    return Choice("resized_crop", "the images are photographs")


def _transforms(recipe: Recipe, images: int) -> Choice:
    """Choose the transforms of views; `data.augment` is chosen."""
    if recipe.data.augment == "none":
        return Choice((), "data.augment is none")
    if recipe.task == "detection":
        return Choice((), "boxes stay whole")
    if starts_from_weights(recipe):
        return Choice((), "the student starts from weights")
    if images >= _FEWEST:
        return Choice((), f"{images:,} images are many")
    if recipe.training.epochs != AUTO and recipe.training.epochs < _LEAST_EPOCHS:
        return Choice((), f"{recipe.training.epochs} epochs are too few for stronger views")
    return Choice(
        ("TrivialAugment",), f"{images:,} images are few: stronger views make more of them"
    )


def _for_training(recipe: Recipe, images: int, student: Wrapped) -> dict[str, Choice]:
    """Choose the keys of `training`; later ones depend on those before."""
    training, why = recipe.training, _modern(recipe, student)
    trained = starts_from_weights(recipe)
    optimizer = _optimizer(training, why)
    training = _set(training, "optimizer", optimizer.value)
    epochs = _epochs(images, training.batch, trained=trained)
    training = _set(training, "epochs", epochs.value)
    schedule = _schedule(training)
    training = _set(training, "schedule", schedule.value)
    rule = _rule(recipe.task, training, trained=trained)
    choices = {
        "epochs": epochs,
        "optimizer": optimizer,
        "lr": Choice(rule.lr, rule.reason),
        "weight_decay": Choice(rule.weight_decay, rule.reason),
        "decay_norms": Choice(training.optimizer == "sgd", rule.reason),
        "schedule": schedule,
        "warmup_epochs": _warmup(training),
    }
    return {f"training.{key}": choice for key, choice in choices.items()}


def starts_from_weights(recipe: Recipe) -> bool:
    """Return True if the student, or the backbone of a detector, starts from given weights."""
    spec = recipe.student
    backbone = spec.options.get("backbone_weights") or spec.options.get("weights_backbone")
    return bool(spec.weights or backbone) or spec.name.startswith("hf:")


def _modern(recipe: Recipe, student: Wrapped) -> str:
    """Return what makes a student one for AdamW; empty if it is one for SGD."""
    if recipe.task == "detection":
        return "is a detector"
    modules = list(student.module.modules())
    if any(isinstance(m, nn.MultiheadAttention) or "attention" in _kind(m) for m in modules):
        return "has attention"
    if any("layernorm" in _kind(m) for m in modules):
        return "has layer norms"
    if any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in modules):
        return "has depthwise convolutions"
    return "starts from weights" if starts_from_weights(recipe) else ""


def _kind(module: nn.Module) -> str:
    return type(module).__name__.lower()


def _optimizer(training: Training, modern: str) -> Choice:
    if training.optimizer != AUTO:
        return Choice(training.optimizer, "")
    if training.nesterov:
        return Choice("sgd", "training.nesterov is for it")
    if training.lr != AUTO and training.lr >= _RATE_OF_SGD:
        return Choice("sgd", f"training.lr {training.lr:g} is a rate for it")
    if modern:
        return Choice("adamw", f"the student {modern}")
    return Choice("sgd", "the student is convolutional and starts from random weights")


def _epochs(images: int, batch: int, *, trained: bool) -> Choice:
    divisor = _FEWER if trained else 1
    steps = ceil(images / batch)
    by_images = _EPOCHS * (_IMAGES / max(images, _IMAGES)) ** (1 / 3) / divisor
    by_steps = _LEAST_STEPS / divisor / steps
    epochs = max(1, round(max(by_images, by_steps)))
    start = ", from weights" if trained else ""
    return Choice(epochs, f"{images:,} images{start}: {epochs * steps:,} steps of {batch}")


def _schedule(training: Training) -> Choice:
    default = Training()
    if (training.milestones, training.gamma) != (default.milestones, default.gamma):
        return Choice("step", "training.milestones or training.gamma are set")
    return Choice("cosine", "the rate falls to 0 at the last epoch, however many there are")


def _warmup(training: Training) -> Choice:
    if training.schedule in ("constant", "step"):
        return Choice(0.0, f"as published with the schedule {training.schedule}")
    rise = float(f"{min(5.0, training.epochs / 20):.2g}")
    return Choice(rise, "a twentieth of the epochs, at most 5")


@dataclass(frozen=True)
class _Rule:
    lr: float
    weight_decay: float
    reason: str


def _rule(task: str, training: Training, *, trained: bool) -> _Rule:
    """Return rate and weight decay of the optimizer.

    Raises:
        RecipeError: They are to be chosen for an optimizer that nothing is known of.
    """
    batch, start = training.batch, "from weights" if trained else "from random weights"
    boxes = task == "detection"
    if training.optimizer == "sgd":
        per_image = (0.01 if trained or boxes else 0.05) / 64
        lr = min(per_image * batch, 8 * 64 * per_image)
        reason = f"SGD, {start}: {64 * per_image:g} for a batch of 64, in proportion to it"
        return _Rule(_rounded(lr), 5e-4, reason)
    if training.optimizer == "adamw":
        rate, of_batch = (1e-4, 16) if boxes and trained else (5e-4, 16) if boxes else (2e-4, 64)
        rate = rate if trained or boxes else 1e-3
        of_batch = of_batch if trained or boxes else 256
        lr = rate * sqrt(batch / of_batch)
        reason = f"AdamW, {start}: {rate:g} for a batch of {of_batch}, in proportion to its root"
        return _Rule(_rounded(lr), 1e-4 if boxes else 0.05, reason)
    if AUTO in (training.lr, training.weight_decay):
        raise RecipeError(
            f"Rate and weight decay are chosen for sgd and adamw alone, and training.optimizer is "
            f"{training.optimizer}: give --training.lr and --training.weight_decay, as its authors "
            "do."
        )
    return _Rule(training.lr, training.weight_decay, "norms and biases need no weight decay")


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _filled(recipe: Recipe, choices: Mapping[str, Choice]) -> tuple[Recipe, dict[str, str]]:
    """Put choices where a recipe says `auto`; return the reason for each of these keys."""
    still_open = [path for path in choices if _get(recipe, path) == AUTO]
    for path in still_open:
        recipe = _put(recipe, path, choices[path].value)
    return recipe, {path: choices[path].reason for path in still_open}


def _set(training: Training, key: str, value: Any) -> Training:
    """Return the training with a value in place of `auto`."""
    return replace(training, **{key: value}) if getattr(training, key) == AUTO else training


def _get(recipe: Recipe, path: str) -> Any:
    group, key = path.split(".")
    return getattr(getattr(recipe, group), key)


def _put(recipe: Recipe, path: str, value: Any) -> Recipe:
    group, key = path.split(".")
    changed: Any = replace(getattr(recipe, group), **{key: value})
    return replace(recipe, **{group: changed})


def _shown(value: Any) -> str:
    if value is None:
        return "its own"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
