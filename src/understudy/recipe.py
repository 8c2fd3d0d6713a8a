"""A recipe: one experiment as frozen data, read from and written to YAML. Imports no torch.

Every field is a key of the YAML file and, by its dotted path, a flag of the command line
(`--training.epochs 3`). The string under each field is its help.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse_from_object

from understudy.errors import NameNotFound, RecipeError, suggestion


@dataclass(frozen=True)
class Data:
    """Where the images come from and how they are shown."""

    source: str = "fashion"
    """Name of a data source: see `understudy list data`."""
    root: str = ""
    """Folder or file of the source; sources shipped with Understudy need none."""
    size: int | None = None
    """Side of the square training view in pixels; default: the source's own size, or 224."""
    augment: Literal["none", "flip", "crop_flip", "resized_crop"] = "crop_flip"
    """`crop_flip`: pad 4, random crop, mirror (small images); `resized_crop`: as on ImageNet."""
    seed: int | None = None
    """Seed of views and of what is left out; default: the recipe's. Equal for a shared bank."""
    validation: float = 0.0
    """Share of the training images kept for validation; 0 validates on the source's test split."""
    images: int | None = None
    """Use only this many training images, the same number of every class."""
    labels: int | None = None
    """Use the labels of only this many training images; the others are shown without a label."""
    labelled_share: float | None = None
    """Share of every batch that is drawn from the labelled images, when others have no label."""
    unreadable: Literal["skip", "fail"] = "skip"
    """What to do with a file that is no image: leave it out and count it, or stop."""
    workers: int = 0
    """Processes that decode image files."""


@dataclass(frozen=True)
class Network:
    """A network by name."""

    name: str = ""
    """`resnet8x4`, `timm:NAME`, `torchvision:NAME`, `hf:PATH` or `path/to/file.py:factory`."""
    weights: str = ""
    """`pretrained`, a run directory, or a file of weights that holds no code."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the network's factory."""
    taps: dict[str, str] = field(default_factory=dict)
    """Feature name → module path, for features that are not found automatically."""
    size: int | None = None
    """Side in pixels of the images this network wants; default: what it was trained with."""
    mean: tuple[float, ...] | None = None
    """Channel means this network subtracts, for values in [0, 1]."""
    std: tuple[float, ...] | None = None
    """Channel deviations this network divides by."""


@dataclass(frozen=True)
class Bank:
    """Where the teacher's outputs are stored and replayed; without a path it runs every step."""

    path: str = ""
    """Directory of the bank; made, and filled as training meets new views, if there is none."""
    features: tuple[str, ...] = ("penultimate", "logits")
    """What is stored of the teacher's outputs; methods that read others run the teacher."""
    dtype: Literal["fp32", "fp16"] = "fp32"
    """How numbers are stored; with `fp32` the student is the same to the bit as without a bank."""
    views: int = 1
    """Views of each image that have a place, where they are not few by nature."""


@dataclass(frozen=True)
class Training:
    """How the student is trained."""

    epochs: int = 240
    """Passes over the training images."""
    batch: int = 64
    """Images per optimizer step, over all processes."""
    accumulate: int = 1
    """Forward passes that one optimizer step is split into, to save memory."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of the student and everything trained beside it."""
    lr: float = 0.05
    """Learning rate at its peak."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: float = 5e-4
    """Weight decay, on every trained parameter as in the papers."""
    schedule: Literal["constant", "step", "cosine", "linear"] = "step"
    """`step` multiplies by `gamma` at each milestone; `cosine` and `linear` fall to 0."""
    milestones: tuple[int, ...] = (150, 180, 210)
    """Epochs after which the step schedule falls."""
    gamma: float = 0.1
    """Factor of the step schedule."""
    warmup_epochs: float = 0.0
    """Linear rise of the learning rate from 0 at the start."""
    clip: float | None = None
    """Largest norm of the gradient."""
    ema: float | None = None
    """Decay of an exponential moving average of the student, which is then what is evaluated."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the networks; losses are always float32."""
    compile: bool = False
    """Compile the training step with torch.compile."""
    channels_last: bool = False
    """Keep images and convolutions in the channels-last memory layout."""
    evaluate_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_minutes: float = 10.0
    """Minutes between saves within an epoch; the end of an epoch is always saved."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where the numbers of every epoch are sent, beside the run directory."""


@dataclass(frozen=True)
class Recipe:
    """One experiment: what to train, on what, from whom, by which methods."""

    name: str = "recipe"
    """Name of the experiment; the default run directory is `runs/<name>`."""
    task: Literal["classification", "none"] = "classification"
    """`none` uses no labels at all: the student learns from the teacher alone."""
    data: Data = Data()
    """Where the images come from."""
    student: Network = Network()
    """The network being trained."""
    teacher: Network = Network()
    """The frozen network it learns from; not needed without methods."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label → hyper-parameters and `weight`; a label that is no method's name needs `method`."""
    bank: Bank = Bank()
    """Where the teacher's outputs are stored and replayed."""
    task_weight: float = 1.0
    """Weight of the loss on labels."""
    training: Training = Training()
    """How the student is trained."""
    seed: int = 0
    """Seed of initial weights, order and augmentation."""

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any key but those in `NOT_IN_DIGEST`.

        Keys at their default do not count, so that a new key changes no digest of before.
        """
        default = flat(Recipe())
        content = {
            key: value
            for key, value in flat(self).items()
            if key not in NOT_IN_DIGEST and value != default.get(key)
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a file or shipped under a name, with some dotted keys replaced.

    Unless it has a `name`, it goes by the one it is shipped under, or by that of the file.

    Raises:
        NameNotFound: Neither a file nor the name of a shipped recipe.
        RecipeError: Not YAML, an unknown key, or a value of the wrong type.
    """
    known = str(name_or_path) in shipped()
    name = str(name_or_path) if known else Path(name_or_path).stem
    return parse({"name": name} | _read(name_or_path), overrides or {})


def parse(content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from plain data; `overrides` maps dotted paths to values."""
    merged = deepcopy(dict(content))
    for path, value in (overrides or {}).items():
        _set(merged, path, value)
    return _build(Recipe, merged, "")


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but `5e-4` is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), [*"-+0123456789"]
)


def from_yaml(text: str) -> Any:
    """What a text in YAML says: the content of a recipe, or one value of a flag."""
    return yaml.load(text, _Loader)


def shipped() -> dict[str, Path]:
    """Name → file of every recipe in the wheel; a name is `<folder>/<file without .yaml>`."""
    root = Path(str(files("understudy") / "recipes"))
    return {str(p.relative_to(root).with_suffix("")): p for p in sorted(root.rglob("*.yaml"))}


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as dictionaries, lists, numbers and strings: what `parse` reads."""
    content: dict[str, Any] = _plain(asdict(recipe))
    return content


def flat(recipe: Recipe) -> dict[str, Any]:
    """Dotted path → value of every key, methods included."""
    return dict(_flatten(plain(recipe), ""))


def _flatten(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def without_methods(recipe: Recipe) -> Recipe:
    """The control of a recipe: same student, data and budget, nothing to learn from the teacher."""
    return replace(recipe, methods={})


def _read(name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    if not path.is_file():
        path = shipped().get(str(name_or_path), path)
    if not path.is_file():
        raise NameNotFound("recipe", str(name_or_path), shipped(), "A recipe may also be a file.")
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no keys; a recipe starts with lines such as 'student:'.")
    return content


def _set(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise RecipeError(f"'{path}' cannot be set: '{parent}' is a value, no group of keys.")
    content[last] = value


_T = TypeVar("_T")

NOT_IN_DIGEST = ("name", "data.root", "data.workers", "bank.path", "bank.views")
"""Keys that name or place an experiment, or make it faster, without changing it."""

_COUNTS = {
    *(f"training.{key}" for key in ("epochs", "batch", "accumulate", "evaluate_every")),
    *(f"data.{key}" for key in ("size", "images", "labels")),
    "bank.views",
}
"""Keys of which 0 makes no sense."""


def _build(cls: type[_T], content: Any, path: str) -> _T:
    """An instance of the dataclass `cls` from a dictionary, checked key by key."""
    if isinstance(content, str) and cls is Network:
        content = {"name": content}
    if not isinstance(content, dict):
        raise RecipeError(f"'{path}' must be a group of keys, not {content!r}.")
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            dotted = f"{path}.{key}" if path else key
            raise RecipeError(
                f"Unknown key '{dotted}'{suggestion(key, known)}. Known here: {', '.join(known)}."
            )
    values = {}
    for key, value in content.items():
        dotted = f"{path}.{key}" if path else key
        values[key] = convert(hints[key], value, dotted)
        if dotted in _COUNTS and values[key] is not None and values[key] < 1:
            raise RecipeError(f"'{dotted}' is {value}; it must be at least 1.")
    return cls(**values)


def convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the type `hint` says.

    Raises:
        RecipeError: It is of another type; names the dotted path.
    """
    origin, options = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _build(hint, value, path)  # type: ignore[arg-type]
    if origin in (UnionType, Union):
        if value is None and NoneType in options:
            return None
        inner = [o for o in options if o is not NoneType]
        return convert(inner[0], value, path) if len(inner) == 1 else value
    if origin is Literal:
        if value not in options:
            names = [str(o) for o in options]
            raise RecipeError(
                f"'{path}' is {value!r}{suggestion(str(value), names)}; "
                f"it can be: {', '.join(names)}."
            )
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(convert(options[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict and value is None:
        return {}  # In YAML, `kd:` with nothing behind it means a method with its defaults.
    if origin is dict and isinstance(value, dict):
        return {str(k): convert(options[1], v, f"{path}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if _is_instance(value, origin or hint):
        return value
    raise RecipeError(f"'{path}' is {value!r}; it must be {_words(hint)}.")


def _is_instance(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return type(value) is kind  # not `isinstance`, to which True is an int
    return isinstance(kind, type) and isinstance(value, kind)


def _words(hint: Any) -> str:
    several = {tuple: "a list", dict: "a group of keys"}
    return several.get(get_origin(hint)) or f"of type {getattr(hint, '__name__', hint)}"


def _plain(value: Any) -> Any:
    """Tuples as lists, so that YAML and JSON agree."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def documentation(cls: type = Recipe, prefix: str = "") -> dict[str, str]:
    """Dotted path → the sentence under the field."""
    hints = get_type_hints(cls)
    found: dict[str, str] = {}
    for parameter in parse_from_object(cls).params:
        name = parameter.arg_name
        found[f"{prefix}{name}"] = parameter.description or ""
        if is_dataclass(hints[name]):
            found |= documentation(hints[name], f"{prefix}{name}.")
    return found


def leaves(cls: type = Recipe, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted path, type and default of every key a recipe can have."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            yield from leaves(hints[f.name], f"{prefix}{f.name}.")
        else:
            default = {} if f.default is MISSING else f.default  # only dictionaries are made
            yield f"{prefix}{f.name}", hints[f.name], default
