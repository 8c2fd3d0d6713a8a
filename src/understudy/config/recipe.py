"""Recipes: one experiment as frozen data, read from and written to YAML. Imports no torch.

Every field is a key of the YAML file and, by its dotted path, a flag of the command line
(`--training.epochs 3`). The string under each field is its help.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml

from understudy.config import rules, trust
from understudy.config.limits import (
    Count,
    Epochs,
    InEpochs,
    MixingShape,
    NonNegative,
    PathText,
    Pixels,
    Positive,
    Range,
    RunName,
    Seed,
    ShareBelowAll,
)
from understudy.config.schema import build, check_plain, leaves, plain
from understudy.config.tables import name_of, put, read

TaskName = Literal["classification", "multilabel", "detection", "none"]
"""Tasks by name; see `understudy list tasks`."""

NOT_IN_DIGEST = (
    *("name", "trust", "data.root", "data.workers", "data.decoded"),
    *("bank.path", "bank.views", "bank.codes", "methods.*.keep"),
)
"""Keys that do not change the result: names, folders, and what makes a run faster.

`*` is any label. `keep` is the folder where a method stores what it measured of the teacher, for
several runs.
"""


@dataclass(frozen=True)
class Data:
    """Source of the images, and how they are augmented."""

    source: str = "fashion"
    """Name of a data source: see `understudy list data`."""
    root: PathText = ""
    """Folder or file of the source; sources shipped with Understudy need none."""
    size: Pixels | None = None
    """Side of the square training view in pixels; default: the source's own size, or 224."""
    augment: Literal["none", "flip", "crop_flip", "resized_crop", "squash_flip", "scale_jitter"] = (
        "crop_flip"
    )
    """`crop_flip`: pad 4, crop, mirror (small images); `resized_crop`: as on ImageNet;
    `squash_flip`: the whole image as a square; `scale_jitter`: enlarged or reduced, with boxes."""
    seed: Seed | None = None
    """Seed of the views and of the images left out; default: the recipe's. Runs that share a bank
    need the same."""
    validation: ShareBelowAll = 0.0
    """Share of the training images held out as the validation split, which chooses the best epoch;
    0: the source's own validation split, if it has one. The test split stays what it is."""
    images: Count | None = None
    """Number of training images to use, the same number of every class; default: all."""
    labels: Count | None = None
    """Number of training images whose labels are used; the others count as unlabelled. Default:
    all."""
    labelled_share: Annotated[float, Range(above=0, most=1)] | None = None
    """Share of every batch that is drawn from labelled images, where other images have no label."""
    unreadable: Literal["skip", "fail"] = "skip"
    """For a file that is not an image: skip and count it, or stop."""
    faulty: Literal["repair", "skip", "fail"] = "repair"
    """For faulty annotations: repair boxes or drop them, and skip an image of which none is left;
    skip every faulty image; or stop."""
    difficult: Literal["ignore", "published"] = "ignore"
    """Objects marked difficult: `ignore` counts them neither as hit nor as error; `published`, as
    in LSHFM, counts them as present in multi-label training and removes them in detection, where
    detecting them is then an error."""
    workers: Annotated[int, Range(least=0, most=1024)] = 0
    """Processes that decode image files."""
    jitter: Annotated[float, Range(least=0, most=10)] = 0.0
    """Strength of a random change of brightness, contrast and saturation, as in torchvision."""
    mixup: MixingShape = 0.0
    """Mix every batch with itself in reverse by a share from Beta(mixup, mixup); 0: no mixup."""
    cutmix: MixingShape = 0.0
    """Paste a box of the other image instead; with both, a step draws one of them. 0: no cutmix."""
    decoded: PathText = ""
    """Folder that stores every image decoded, so that it is decoded only once; default: none."""
    decoded_side: Pixels | None = None
    """Shorter side in pixels to which decoded images are reduced; default: unchanged."""


@dataclass(frozen=True)
class Network:
    """A network by name, with its weights and input."""

    shorthand: ClassVar[str] = "name"

    name: PathText = ""
    """`resnet8x4`, `timm:NAME`, `hf-hub:OWNER/NAME` (a model of timm on the hub of Hugging Face),
    `torchvision:NAME`, `hf:PATH` or `path/to/file.py:factory`."""
    weights: PathText = ""
    """`pretrained`, a run directory, or a file of weights that holds no code; `own` if the function
    of a Python file loads them itself."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the function that builds the network."""
    taps: dict[str, str] = field(default_factory=dict)
    """Feature name → module path, for features that are not found automatically."""
    classifier: str = ""
    """Path of the layer or module that computes the logits of the penultimate feature; default:
    found automatically; `none`: the network has none, and its output is the feature."""
    size: Pixels | None = None
    """Side in pixels of the images this network takes; default: what it was trained with."""
    mean: tuple[float, ...] | None = None
    """Channel means this network subtracts, for values in [0, 1]."""
    std: tuple[Positive, ...] | None = None
    """Channel standard deviations this network divides by."""
    pool: Literal["", "gap", "gmp", "gwp"] = ""
    """Pooling of the last map: mean, maximum, or the mean of both; default: the network's own."""


@dataclass(frozen=True)
class Bank:
    """Stored outputs of the teacher; without a path the teacher runs in every step."""

    path: PathText = ""
    """Directory of the bank; created if missing, and filled as training meets new views."""
    features: tuple[str, ...] = ("penultimate", "logits")
    """Features that are stored; a method that reads others runs the teacher."""
    dtype: Literal["fp32", "fp16", "int8"] = "fp32"
    """Number format; with `fp32` the student is the same to the bit as without a bank."""
    top_logits: Count | None = None
    """Store only this many of the largest logits, and one value for all others; default: all."""
    codes: bool = False
    """Also store what methods compute from the teacher alone, such as the hash bits of lshfm."""
    views: Count = 1
    """Views stored per image, where augmentation has more than a few."""


@dataclass(frozen=True)
class Training:
    """Optimizer, schedule, precision and evaluation."""

    epochs: Epochs = 240
    """Passes over the training images."""
    batch: Count = 64
    """Images per optimizer step, over all processes."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller than the others."""
    accumulate: Count = 1
    """Forward passes per optimizer step; more need less memory."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of the student and of the methods' parameters."""
    lr: NonNegative = 0.05
    """Learning rate at its peak."""
    momentum: ShareBelowAll = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: NonNegative = 5e-4
    """Weight decay, on every trained parameter as in the papers."""
    schedule: Literal["constant", "step", "cosine", "linear"] = "step"
    """`step` multiplies by `gamma` at each milestone; `cosine` and `linear` decay to 0."""
    milestones: tuple[Epochs, ...] = (150, 180, 210)
    """Epochs after which the step schedule multiplies by `gamma`."""
    gamma: Annotated[float, Range(above=0, most=1)] = 0.1
    """Factor of the step schedule."""
    warmup_epochs: Annotated[float, Range(least=0), InEpochs(whole=False)] = 0.0
    """Linear rise of the learning rate from 0 at the start."""
    clip: Positive | None = None
    """Largest norm of the gradient; default: no limit, or 10 for the hash losses of detectors."""
    multilabel_loss: Literal["bce", "asymmetric"] = "bce"
    """Loss on labels of `task: multilabel`; `asymmetric` gives absent ones less weight (Ridnik
    2021)."""
    asymmetry: tuple[NonNegative, NonNegative, ShareBelowAll] = (0.0, 4.0, 0.05)
    """Asymmetric loss: focusing of present classes, focusing of absent classes, clip."""
    label_smoothing: ShareBelowAll = 0.0
    """Share of every label that is distributed over all classes."""
    only: tuple[str, ...] = ()
    """Train only these parameters of the student, such as `*.embedding.*`; default: all."""
    ema: ShareBelowAll | None = None
    """Decay of an exponential moving average of the student, which is then evaluated and saved;
    default: none."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Precision of the networks; losses are always float32. `auto`: bf16 where it is fast."""
    teacher_precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the teacher; `auto` is that of the student."""
    compile: bool = False
    """Compile student, methods and teacher with torch.compile."""
    graphs: bool = True
    """On a GPU, capture whole steps on images in memory as CUDA graphs, sixteen in a launch."""
    channels_last: bool | None = None
    """Use the channels-last layout for images and convolutions; default: where it is faster."""
    evaluate_every: Count = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    best: Literal["validation", "test", "none"] = "validation"
    """Images that choose the epoch kept in `best/`: none is kept without a validation split. `test`
    is what many papers report, and flatters that epoch."""
    checkpoint_minutes: NonNegative = 10.0
    """Minutes between saves within an epoch; the end of an epoch is always saved."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers that receive the numbers of every epoch, besides the run directory."""


@dataclass(frozen=True)
class Recipe:
    """One experiment: student, teacher, methods, data, training."""

    name: RunName = "recipe"
    """Name of the experiment; the default run directory is `runs/<name>`."""
    task: TaskName = "classification"
    """`multilabel`: several classes per image; `none`: no labels, the teacher alone."""
    data: Data = Data()
    """Source of the images, and how they are augmented."""
    student: Network = Network()
    """Network to train."""
    teacher: Network = Network()
    """Frozen network to learn from; not needed without methods."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label → hyper-parameters and `weight`; a label that is no method's name needs `method`."""
    bank: Bank = Bank()
    """Stored outputs of the teacher."""
    task_weight: NonNegative = 1.0
    """Weight of the loss on labels."""
    training: Training = Training()
    """Optimizer, schedule, precision and evaluation."""
    seed: Seed = 0
    """Seed of initial weights, image order and augmentation."""
    trust: bool = False
    """Execute the Python files outside the working folder that a run directory or the file of a
    recipe names for its networks; only where you know these files."""

    @classmethod
    def load(
        cls,
        recipe: "str | Path | Mapping[str, Any] | Recipe",
        overrides: Mapping[str, Any] | None = None,
    ) -> "Recipe":
        """Return a recipe given in any form, with some keys replaced.

        A recipe from a file without a `name` takes the name it is shipped under, or that of the
        file. See `understudy.config.tables` for `base` and `rows`.

        Args:
            recipe: Name of a shipped recipe, path of a YAML file, nested dictionary, or recipe.
            overrides: Keys to replace, dotted or nested: `{"training.epochs": 1}` and
                `{"training": {"epochs": 1}}` are the same. `methods`, `options` and `taps` are
                values: a mapping replaces them whole, a dotted key such as `methods.kd.weight`
                changes one entry. A network given as a string replaces all its keys.

        Raises:
            NameNotFound: `recipe` is neither a file nor the name of a shipped recipe.
            RecipeError: Not YAML, an unknown key, or a value of the wrong type or out of its range.
            NetworkError: The file names a Python file outside the working folder, which neither
                `overrides` name nor its key `trust` allows; see `understudy.config.trust`.

        >>> Recipe.load("fashion/demo", {"training.epochs": 1}).training.epochs
        1
        >>> Recipe.load({"student": "resnet8"}, {"training": {"lr": 0.1}}).training.lr
        0.1
        """
        replaced = dict(_dotted(overrides or {}))
        if isinstance(recipe, str | Path):
            file, recipe = recipe, {"name": name_of(recipe)} | read(recipe)
            trust.check_recipe_file(file, recipe, replaced)
        # One made in Python is checked as those of files are.
        content = recipe.to_dict() if isinstance(recipe, Recipe) else recipe
        loaded = cls.from_dict(content)
        if not replaced:
            return loaded
        content = loaded.to_dict()
        for path, value in replaced.items():
            put(content, path, value)
        return cls.from_dict(content)

    @classmethod
    def read(cls, recipe: str | Path) -> "Recipe":
        """Return a recipe by its name or file, to look at: nothing is said of what it may execute.

        Raises:
            NameNotFound: Neither a file nor the name of a shipped recipe.
            RecipeError: As for `load`.

        >>> Recipe.read("fashion/demo").task
        'classification'
        """
        return cls.from_dict({"name": name_of(recipe)} | read(recipe))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Recipe":
        """Return the recipe of nested dictionaries; a missing key has its default.

        Raises:
            RecipeError: An unknown key, a value of the wrong type or out of its range, or values
                that exclude each other; names the dotted path.

        >>> Recipe.from_dict({"student": "resnet8", "training": {"epochs": 2}}).student.name
        'resnet8'
        """
        check_plain(content)
        recipe = build(cls, plain(content))
        rules.check(recipe)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as dictionaries, lists, numbers and strings: `from_dict` reads it.

        >>> Recipe().to_dict()["training"]["milestones"]
        [150, 180, 210]
        """
        content: dict[str, Any] = plain(asdict(self))
        return content

    def to_yaml(self) -> str:
        """Return the recipe as YAML with every key written out.

        >>> print(Recipe(name="mine").to_yaml().splitlines()[0])
        name: mine
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Return dotted path → value of every key, methods included.

        >>> Recipe(methods={"kd": {"weight": 2}}).flat()["methods.kd.weight"]
        2
        """
        return dict(_flatten(self.to_dict(), ""))

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any key but those in `NOT_IN_DIGEST`.

        Keys at their default do not count, so adding a key to `Recipe` changes no earlier digest.
        """
        default = Recipe().flat()
        content = {
            key: value
            for key, value in self.flat().items()
            if not any(fnmatchcase(key, path) for path in NOT_IN_DIGEST)
            and value != default.get(key)
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _dotted(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every override; a mapping is entered where a recipe has a group."""
    groups = {path.rpartition(".")[0] for path, _, _ in leaves(Recipe)} - {""}
    for key, value in overrides.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path in groups:
            yield from _dotted(value, f"{path}.")
        else:
            yield path, value


def _flatten(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def without_methods(recipe: Recipe) -> Recipe:
    """Return the control of a recipe: same student, data and budget, without methods."""
    return replace(recipe, methods={})
