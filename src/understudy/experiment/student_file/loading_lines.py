"""Lines of Python that load a student in a program of its user's, without Understudy if possible.

They define `network`, in evaluation mode with its weights, `transform`, from an RGB image of Pillow
to the tensor that the network takes, so that `network(transform(image)[None])` are the logits that
the run was measured by, and `classes`, the names by number. A comment is the expression that gives
the name of an image's class.
"""

import json
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any

from understudy.config.image_size import sides
from understudy.experiment.student_file.config import FILE, Preprocessing, StudentConfig


@dataclass(frozen=True)
class LoadingLines:
    """How a student is loaded; as text a program, in which every sentence is a comment.

    Attributes:
        code: Python that needs nothing of Understudy.
        before: Python that is run once with Understudy, where the student cannot be built without
            it; else empty.
        note: What is to be known, in sentences; may be empty.
    """

    code: str
    before: str = ""
    note: str = ""

    def __str__(self) -> str:
        parts = []
        if self.before:
            once = "# Once, with Understudy, which alone can build this network:"
            parts += [f"{once}\n{self.before}"]
        parts += [f"# Load this student without Understudy:\n{self.code}"]
        if self.note:
            parts[-1] += f"\n# {self.note}"
        return "\n\n".join(parts)


def loading_lines(
    config: StudentConfig, folder: Path, *, weights: str = "student.safetensors"
) -> LoadingLines:
    """Return the lines that load a student.

    Args:
        config: Content of its `config.json`.
        folder: Folder that holds it and the weights: absolute for lines that work from any folder.
        weights: Name of the file of weights.
    """
    note = _note(config)
    if config.timm:
        return _timm(config, folder, note)
    built = _built(config, folder)
    if built is None:
        return _exported(config, folder, note)
    imports, lines = built
    return LoadingLines(_program(imports, lines, config, folder / weights), note=note)


def _note(config: StudentConfig) -> str:
    notes = {
        "detector": "It takes a list of pictures: network([transform(image)]).",
        "huggingface": "Its logits are network(transform(image)[None]).logits.",
    }
    precision = config.measured.get("precision", "fp32")
    measured = "" if precision == "fp32" else f"Its metrics were measured in {precision}."
    return f"{notes.get(config.library, '')} {measured}".strip()


def _timm(config: StudentConfig, folder: Path, note: str) -> LoadingLines:
    place = _text(f"local-dir:{folder.as_posix()}")
    network = f"network = timm.create_model({place}, pretrained=True).eval()"
    imports = ["from timm.data import create_transform, resolve_data_config"]
    transform = ["transform = create_transform(**resolve_data_config(model=network))"]
    if not config.preprocessing.is_timms:
        imports, transform = _transform(config.preprocessing)
        note = f"{note} timm's own transform would prepare pictures a little differently.".lstrip()
    named, classes = _classes(config, folder)
    imports = _sorted(["import timm", *imports, *named])
    return LoadingLines("\n".join([*imports, "", network, *transform, *classes]), note=note)


_Lines = tuple[list[str], list[str]]
"""Imports, and lines that need them."""


def _classes(config: StudentConfig, folder: Path, *, script: bool = False) -> _Lines:
    """Return the lines that define `classes`, and say how the classes of an image are named.

    Args:
        config: The student's configuration.
        folder: Folder of its `config.json`.
        script: True for a detector that is a script, which returns losses first.
    """
    if not config.classes or not config.gives_scores:
        return [], []
    names = f'json.load(open({_text((folder / FILE).as_posix())}))["understudy"]["classes"]'
    logits = "network(transform(image)[None])"
    logits += ".logits" if config.library == "huggingface" else ""
    if config.is_detector:
        names = f'["background", *{names}]'
        detections = f"network([transform(image)]){'[1]' if script else ''}[0]"
        what, name = (
            "the classes of the objects in an",
            f'[classes[i] for i in {detections}["labels"]]',
        )
    elif config.threshold is not None:
        present = f"zip({logits}[0].sigmoid(), classes) if p >= {config.threshold:g}"
        what, name = "the classes of an", f"[name for p, name in {present}]"
    else:
        what, name = "the class of an", f"classes[{logits}.argmax()]"
    named = f"# {'names of' if name[0] == '[' else 'name of'} {what} image of Pillow in RGB:"
    return ["import json"], [f"classes = {names}", named, f"# {name}"]


def _built(config: StudentConfig, folder: Path) -> _Lines | None:
    """Return the lines that build a network without its weights; None if only Understudy can."""
    if config.kept or config.network.pool:
        return None
    builders = {
        "torchvision": _torchvision,
        "file": _file,
        "huggingface": _huggingface,
        "detector": _detector,
    }
    build = builders.get(config.library)
    return build(config, folder) if build else None


def _torchvision(config: StudentConfig, folder: Path) -> _Lines:
    name = config.network.name.partition(":")[2]
    options = {"num_classes": config.num_classes, **config.network.options}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}
    imports = ["from torchvision import models"]
    return imports, [f"network = models.get_model({_text(name)}{_arguments(options)})"]


_FACTORY = "factory"
"""The function of a Python file whose name no statement `import` can hold."""


def _file(config: StudentConfig, folder: Path) -> _Lines | None:
    factory = config.factory or {}
    if factory.get("needs_understudy"):
        return None
    name, _, function = config.network.name.rpartition(":")
    path = Path(name).absolute() if folder.is_absolute() else Path(name)
    arguments = _arguments(factory.get("arguments", {})).removeprefix(", ")
    importing = f"from {path.stem} import {function}"
    modules = ["import sys", "import torch"]
    if not all(x.isidentifier() and not iskeyword(x) for x in (path.stem, function)):
        modules.insert(0, "import runpy")
        importing = f"{_FACTORY} = runpy.run_path({_text(path.as_posix())})[{_text(function)}]"
        function = _FACTORY
    lines = [
        f"sys.path.insert(0, {_text(path.parent.as_posix())})",
        importing,
        "",
        f"network = {function}({arguments})",
    ]
    if factory.get("classifier"):
        lines.append(f"network.set_submodule({_text(factory['path'])}, {factory['classifier']})")
    return modules, lines


def _huggingface(config: StudentConfig, folder: Path) -> _Lines:
    architectures = (config.huggingface or {}).get("architectures") or ()
    classifies = any("ForImageClassification" in name for name in architectures)
    kind = "AutoModelForImageClassification" if classifies else "AutoModel"
    file = _text((folder / FILE).as_posix())
    options = _arguments(config.network.options)
    return (
        ["import json", f"from transformers import AutoConfig, {kind}"],
        [
            f'config = json.load(open({file}))["understudy"]["huggingface"]',
            f"network = {kind}.from_config(AutoConfig.for_model(**config){options})",
        ],
    )


_FAMILIES = {"fasterrcnn": "FasterRCNN", "fcos": "FCOS", "retinanet": "RetinaNet"}
_OF_FAMILIES = ("backbone", "backbone_weights", "trainable_layers", "channels", "anchors", "mask")


def _detector(config: StudentConfig, folder: Path) -> _Lines | None:
    name, detector = config.network.name, config.detector or {}
    options, columns = config.network.options, (config.num_classes or 0) + 1
    if name.startswith("torchvision:"):
        own = {k: v for k, v in options.items() if k not in _OF_FAMILIES}
        arguments = {"weights": None, "weights_backbone": None, "num_classes": columns, **own}
        kind = _text(name.partition(":")[2])
        return ["from torchvision import models"], [
            f"network = models.get_model({kind}{_arguments(arguments)})"
        ]
    if name not in _FAMILIES or not detector.get("layers"):
        return None
    return _over_pyramid(_FAMILIES[name], config, detector, columns)


def _over_pyramid(
    kind: str, config: StudentConfig, detector: dict[str, Any], columns: int
) -> _Lines:
    """Return the lines of a detector over a feature pyramid of a backbone of torchvision."""
    options = config.network.options
    backbone = str(options.get("backbone", "resnet50")).rpartition(":")[2]
    channels = repr(options.get("channels", 256))
    dense = kind != "FasterRCNN"
    extra = f", LastLevelP6P7({channels}, {channels})" if dense else ""
    own = {k: v for k, v in options.items() if k not in _OF_FAMILIES}
    statistics = {"image_mean": detector["mean"], "image_std": detector["std"]}
    arguments = _arguments({"num_classes": columns, **statistics, **own})
    lines = [
        f"layers, widths = {detector['layers']}, {detector['widths']}",
        f"backbone = models.get_model({_text(backbone)}){detector['features']}",
        f"pyramid = BackboneWithFPN(backbone, layers, widths, {channels}{extra})",
    ]
    imports = [
        "from torchvision import models",
        f"from torchvision.models.detection import {kind}",
        "from torchvision.models.detection.backbone_utils import BackboneWithFPN",
    ]
    if dense:
        imports.append("from torchvision.ops.feature_pyramid_network import LastLevelP6P7")
    if options.get("anchors"):
        imports.append("from torchvision.models.detection.anchor_utils import AnchorGenerator")
        sizes = tuple(map(tuple, detector["anchors"]["sizes"]))
        ratios = tuple(map(tuple, detector["anchors"]["aspect_ratios"]))
        lines.append(f"anchors = AnchorGenerator({sizes}, {ratios})")
        keyword = "anchor_generator" if dense else "rpn_anchor_generator"
        arguments += f", {keyword}=anchors"
    return imports, [*lines, f"network = {kind}(pyramid{arguments})"]


def _exported(config: StudentConfig, folder: Path, note: str) -> LoadingLines:
    """Return the lines for a student that only Understudy builds: as a program of torch's own."""
    if config.kept:
        layers = " and ".join(sorted(set(config.kept.values())))
        why = f"The student keeps layers of {layers}, which no other library builds."
    elif config.network.pool:
        why = "The student has another pooling than its library builds."
    else:
        why = "Its network is one that only Understudy builds."
    trust = ", trust=True" if ".py:" in config.network.name else ""
    opening = (
        "import torch\n"
        "from understudy.deployment.saved_student import open_student\n\n"
        f"student = open_student({_text(folder.as_posix())}{trust})\n"
    )
    if config.library == "detector":
        file = _text((folder / "student.ts").as_posix())
        before = opening + f"torch.jit.script(student.module).save({file})"
        imports = ["import torch", "import torchvision"]
        loaded = f"network = torch.jit.load({file})"
        why += " As a script it returns losses, which are empty, and then the detections."
    else:
        file = _text((folder / "student.pt2").as_posix())
        steps = config.preprocessing
        height, width = sides(steps.size or 0)
        example = f"torch.rand(2, {steps.channels}, {height}, {width})"
        before = opening + (
            f"program = torch.export.export(student.module, ({example},), dynamic_shapes="
            '[{0: torch.export.Dim("batch")}])\n'
            f"torch.export.save(program, {file})"
        )
        imports, loaded = ["import torch"], f"network = torch.export.load({file}).module()"
    more, transform = _transform(config.preprocessing)
    named, classes = _classes(config, folder, script=config.is_detector)
    lines = [loaded, *_as_measured(config), *transform, *classes]
    code = "\n".join([*_sorted(imports + more + named), "", *lines])
    return LoadingLines(code, before, f"{why} {note}".rstrip())


def _program(imports: list[str], lines: list[str], config: StudentConfig, weights: Path) -> str:
    """Return a program of imports, the lines that build the network, its weights and transform."""
    file = _text(weights.as_posix())
    frozen = (config.detector or {}).get("frozen_norms")
    # Frozen norms count no batches.
    strict = ", strict=False" if frozen else ""
    more, transform = _transform(config.preprocessing)
    named, classes = _classes(config, weights.parent)
    loading = [f"network.load_state_dict(load_file({file}){strict})", "network.eval()"]
    if as_measured := _as_measured(config):
        loading, imports = [*loading, *as_measured], ["import torch", *imports]
    imports = _sorted([*imports, "from safetensors.torch import load_file", *more, *named])
    return "\n".join([*imports, "", *lines, *loading, *transform, *classes])


def _as_measured(config: StudentConfig) -> list[str]:
    """Return the line by which a detector rounds as in its evaluation.

    Of detections whose scores almost agree, the last bit decides which one comes first; classes
    lie further apart.
    """
    if not config.is_detector or not config.measured.get("channels_last"):
        return []
    return ["network.to(memory_format=torch.channels_last)  # rounds as when it was measured"]


def _transform(steps: Preprocessing) -> _Lines:
    """Return imports and lines of the test transform by torchvision."""
    parts: list[str] = []
    if steps.reduced is not None:
        parts += ["v2.PILToTensor()", f"v2.Lambda({_reducing(steps.reduced)})", "v2.ToPILImage()"]
    # `ToDtype` would multiply by the rounded reciprocal of 255.
    to_floats = ["v2.PILToTensor()", "v2.Lambda(lambda x: x / 255)"]
    resizing = [] if steps.resize is None else [_resizing(steps)]
    resizing += [] if steps.crop is None else [f"v2.CenterCrop({steps.crop})"]
    parts += [*resizing, *to_floats] if steps.rounded else [*to_floats, *resizing]
    if steps.channels == 1:
        parts.append(f"v2.Lambda({_GREYING})")
    if steps.network_size:
        mode = f"v2.InterpolationMode.{steps.network_interpolation.upper()}"
        size = sides(steps.network_size)
        parts += [f"v2.Resize({size}, {mode})", "v2.Lambda(lambda x: x.clamp(0, 1))"]
    if steps.mean:
        parts.append(f"v2.Normalize({list(steps.mean)}, {list(steps.std)})")
    lines = ["transform = v2.Compose([", *(f"    {part}," for part in parts), "])"]
    grey = ["import torch"] if steps.channels == 1 else []
    return [*grey, "from torchvision.transforms import v2"], lines


def _resizing(steps: Preprocessing) -> str:
    """Return the call that resizes a picture; to cover height and width is none of torchvision."""
    assert steps.resize is not None
    if steps.squash or isinstance(steps.resize, int):
        return f"v2.Resize({sides(steps.resize) if steps.squash else steps.resize})"
    height, width = steps.resize
    old = "v2.functional.get_size(x)"
    ratio = f"min({old}[0] / {height}, {old}[1] / {width})"
    size = f"[round(n / {ratio}) for n in {old}]"
    return f"v2.Lambda(lambda x: v2.functional.resize(x, {size}))"


_GREYING = "lambda x: (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)"


def _reducing(side: int) -> str:
    size = f"[round(n * {side} / min(x.shape[1:])) for n in x.shape[1:]]"
    return f"lambda x: v2.functional.resize(x, {size}) if min(x.shape[1:]) > {side} else x"


def _arguments(options: dict[str, Any]) -> str:
    """Return options as arguments of a call, each after a comma."""
    return "".join(f", {key}={value!r}" for key, value in options.items())


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _sorted(imports: list[str]) -> list[str]:
    """Return imports once each, those of whole modules first."""
    return sorted(set(imports), key=lambda line: (line.startswith("from"), line))
