"""The file `config.json` beside a student's weights: all that is needed to use it. Loads no torch.

For a student that timm builds, the file is timm's own as well: `timm.create_model` reads
`architecture`, `num_classes`, `model_args` and `pretrained_cfg` of it, and everything else stands
under `understudy`. For other students `architecture` is the name by which recipes call the network,
which timm refuses.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from understudy import files
from understudy.config.image_size import ImageSize, Size
from understudy.config.json_form import Form, Such, check_form, parse_json
from understudy.config.recipe import Network, TaskName
from understudy.config.schema import build
from understudy.errors import RecipeError, RunError

FILE = "config.json"
_FORMAT = 1
_REMEDY = "train again, or copy the file that belongs to the weights"

Library = Literal["timm", "torchvision", "huggingface", "file", "understudy", "detector"]
"""Who builds the network: `file` is a function of the user's own, `detector` a torchvision detector
of any backbone, `understudy` one of the networks of the papers."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before the module gets it, step by step.

    1. `reduced`: a picture whose shorter side is larger is reduced to it by torch.
    2. `resize`: the shorter side becomes so long, by Pillow if `rounded`, otherwise by torch as
       floats; both sides with `squash`. Of height and width, the picture is resized so that it
       covers them, as timm's `ResizeKeepRatio` does, and to them with `squash`. None for a
       detector, which resizes pictures itself.
    3. `crop`: the square of this side, or this height and width, is cut out of the centre.
    4. Values from 0 to 255 become 0 to 1.
    5. `network_size`: the result is resized again, by torch, and clamped to 0…1.
    6. `mean` is subtracted, and the difference divided by `std`, channel by channel. Of one value,
       the picture becomes grey first. A detector has neither, and normalises pictures itself.
    """

    resize: ImageSize | None = None
    crop: ImageSize | None = None
    squash: bool = False
    rounded: bool = True
    reduced: int | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    network_size: ImageSize | None = None
    network_interpolation: str = "bicubic"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def size(self) -> Size | None:
        """Size of the images that the module gets; None for a detector, which takes any."""
        return self.network_size or self.crop

    @property
    def channels(self) -> int:
        """Channels of the images that the module gets."""
        return len(self.mean) or 3

    @property
    def is_timms(self) -> bool:
        """True if timm's transform of such a configuration does the same to the last digit."""
        once = self.rounded and self.reduced is None and self.network_size is None
        return once and self.resize is not None and self.channels == 3


@dataclass(frozen=True)
class StudentConfig:
    """Content of `config.json`.

    Attributes:
        task: Name of the task.
        library: Who builds the network.
        network: The network's part of the recipe, completed.
        preprocessing: What happens to a picture first.
        num_classes: Number of classes, without a background; None without a classifier.
        classes: Their names in the order of the logits; empty if unknown.
        gives_scores: False if nothing trained the classifier: no label, and no method that reads
            the student's scores.
        timm: What timm reads of the file; empty if it cannot build the student.
        kept: Path in the module → method whose layer stays there.
        detector: Sizes, anchors and thresholds of a detector.
        threshold: Probability from which a class counts as present, where there may be several.
        initial: Weights that training began with, and their licence.
        teacher: Name, weights, digest and licence of the teacher; None without one.
        teachers: The same of each teacher with a name in the recipe, by these names.
        recipe: Digest of the recipe.
        data: Source of the images, and how many there are of each split.
        metrics: Metrics of this student.
        measured: What they are of: split, images, origin, precision, memory format, epoch.
        control: Metric of the control and of the arm in a comparison; None before it ended.
        verdict: Its verdict in a sentence.
        huggingface: Configuration of a model of transformers.
        factory: How the function of a Python file is called, and the classifier that replaces its
            own.
        version: Version of Understudy.
    """

    task: TaskName
    library: Library
    network: Network
    preprocessing: Preprocessing
    num_classes: int | None
    classes: tuple[str, ...] = ()
    gives_scores: bool = True
    timm: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    detector: dict[str, Any] | None = None
    threshold: float | None = None
    initial: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] | None = None
    teachers: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    control: dict[str, Any] | None = None
    verdict: str | None = None
    huggingface: dict[str, Any] | None = None
    factory: dict[str, Any] | None = None
    version: str = ""

    @property
    def is_detector(self) -> bool:
        """True for a detector, which takes a list of pictures and finds boxes."""
        return self.detector is not None

    @property
    def predicts(self) -> bool:
        """False if the network gives scores of classes that nothing trained."""
        return self.gives_scores or self.num_classes is None

    @property
    def each_teacher(self) -> list[dict[str, Any]]:
        """What is known of each teacher; none of a student that was trained alone."""
        return [*([self.teacher] if self.teacher else []), *self.teachers.values()]

    @classmethod
    def read(cls, folder: Path) -> "StudentConfig":
        """Read the file in a folder.

        Raises:
            RunError: It is missing, damaged, or of another program.
        """
        path = folder / FILE
        if not path.is_file():
            raise RunError(
                f"{folder} has no {FILE}, which says how its student is built and what it takes: a "
                "run writes it when it has ended; continue it with --resume, or train again if an "
                "earlier version of Understudy made it."
            )
        content = parse_json(path, remedy=_REMEDY)
        check_form(content, FORM, path, remedy=_REMEDY)
        stored = content["understudy"]
        own = {key: stored[key] for key in _OWN if key in stored}
        try:
            own["network"] = build(Network, own["network"], "network")
            own["preprocessing"] = build(Preprocessing, own["preprocessing"], "preprocessing")
        except RecipeError as error:
            raise RunError(f"{path} is damaged, or from another version: {error}") from error
        own["classes"] = tuple(own["classes"])
        top = {key: content[key] for key in _TIMM if key in content}
        timm = top if "pretrained_cfg" in content else {}
        return cls(num_classes=content["num_classes"], timm=timm, **own)

    def write(self, folder: Path) -> None:
        """Write the file into a folder.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        files.write(folder / FILE, self.to_json())

    def without_folders(self) -> "StudentConfig":
        """Return the same for other machines: of files of this one the names alone."""
        teacher, initial, *others = (
            {key: _file_name(x) if key in ("name", "weights") else x for key, x in each.items()}
            for each in (self.teacher or {}, self.initial, *self.teachers.values())
        )
        teachers = dict(zip(self.teachers, others, strict=True))
        network = replace(
            self.network,
            name=_file_name(self.network.name),
            weights=_file_name(self.network.weights),
        )
        return replace(
            self, network=network, teacher=teacher or None, teachers=teachers, initial=initial
        )

    def to_json(self) -> str:
        """Return the content of the file."""
        return files.as_json(self.to_dict(), indent=1) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file as plain data."""
        own = asdict(self)
        timm = own.pop("timm") or {"architecture": self.network.name}
        count = own.pop("num_classes")
        return {
            "architecture": timm["architecture"],
            "num_classes": count,
            **timm,
            "understudy": {"format": _FORMAT, **own},
        }


def _file_name(name: str) -> str:
    """Return the last part of a path; names of networks and of repositories unchanged."""
    on_disk = ".py:" in name or ((name.startswith("hf:") or ":" not in name) and "/" in name)
    return Path(name).name if on_disk else name


_TIMM = ("architecture", "num_features", "model_args", "pretrained_cfg")
_NUMBERS: Form = {str: (float, None)}
_TEACHER: Form = {
    "name": str,
    "weights": str,
    "digest": (str, None),
    "license": (str, None),
}
_LAYER = re.compile(r"torch\.nn\.(Linear|Conv2d)\([\d, ]+, bias=(True|False)\)")
"""The call that builds a classifier; the lines that load a student hold it as it is."""


def _one_of(*choices: object) -> Form:
    """Return the form of one of several values of a type."""
    return Such(type(choices[0]), lambda x: "" if x in choices else repr(x))


def _side_fault(side: int) -> str:
    return "" if side > 0 else f"a side of {side} pixels"


def _names_fault(options: Mapping[str, Any]) -> str:
    """Return the first key that is no name of an argument: the loading lines hold it as it is."""
    others = [key for key in options if not key.isidentifier()]
    return f"the argument {others[0]!r}" if others else ""


def _layer_fault(code: str) -> str:
    return "" if not code or _LAYER.fullmatch(code) else f"{code!r}, which builds no classifier,"


def _steps_fault(steps: Mapping[str, Any]) -> str:
    mean, std = len(steps["mean"]), len(steps["std"])
    alike = mean == std and mean in (0, 1, 3)
    return "" if alike else f"{mean} channel means and {std} deviations"


def _content_fault(content: Mapping[str, Any]) -> str:
    own, count = content["understudy"], content["num_classes"]
    if own["classes"] and count not in (None, len(own["classes"])):
        return f"{len(own['classes'])} names of {count} classes"
    if own["task"] != "detection" and not own["preprocessing"]["mean"]:
        return "no channel means, which a classifier needs"
    return ""


_SIDE: Form = (Such(int, _side_fault), None)
_SIZE: Form = (Such(int, _side_fault), [int], None)
_RESIZING: Form = _one_of("nearest", "bilinear", "bicubic")
_OPTIONS: Form = Such({str: object}, _names_fault)
_STEPS: Form = Such(
    {
        "resize": _SIZE,
        "crop": _SIZE,
        "squash": bool,
        "rounded": bool,
        "reduced": _SIDE,
        "interpolation": _RESIZING,
        "antialias": bool,
        "network_size": _SIZE,
        "network_interpolation": _RESIZING,
        "mean": [float],
        "std": [float],
    },
    _steps_fault,
)
_DETECTOR: Form = {"features?": _one_of("", ".features"), "widths?": [int], "layers?": {str: str}}
_FACTORY: Form = {"arguments?": _OPTIONS, "path?": str, "classifier?": Such(str, _layer_fault)}
_UNDERSTUDY: Form = {
    "format": _one_of(_FORMAT),
    "task": _one_of(*get_args(TaskName)),
    "library": _one_of(*get_args(Library)),
    "network": {"name": str, "options": _OPTIONS},
    "preprocessing": _STEPS,
    "classes": [str],
    "gives_scores?": bool,
    "kept": {str: str},
    "detector": (_DETECTOR, None),
    "threshold": (Such(float, lambda x: "" if 0 <= x <= 1 else f"{x:g}"), None),
    "initial": {str: (str, None)},
    "teacher": (_TEACHER, None),
    "teachers?": {str: _TEACHER},
    "recipe": str,
    "data": {str: object},
    "metrics": _NUMBERS,
    "measured": {str: object},
    "control": ({str: object}, None),
    "verdict": (str, None),
    "huggingface": ({str: object}, None),
    "factory": (_FACTORY, None),
    "version": str,
}
_OWN = tuple(key.removesuffix("?") for key in _UNDERSTUDY if key != "format")

FORM: Form = Such(
    {
        "architecture": str,
        "num_classes": (int, None),
        "model_args?": {str: object},
        "pretrained_cfg?": {str: object},
        "understudy": _UNDERSTUDY,
    },
    _content_fault,
)
"""Form of `config.json`."""
