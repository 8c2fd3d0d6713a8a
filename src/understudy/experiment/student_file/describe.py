"""Describe the student of a run for its `config.json`, from what the run has built."""

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.layers import FrozenBatchNormAct2d
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d

from understudy import __version__
from understudy.config import recipe as recipes
from understudy.config.recipe import Recipe, key_of
from understudy.experiment import networks
from understudy.experiment.build import Experiment, teacher_digest
from understudy.experiment.student_file.config import Library, Preprocessing, StudentConfig
from understudy.experiment.student_file.licences import licence_of
from understudy.experiment.student_file.preprocess import ended_by
from understudy.experiment.student_file.timm_config import timm_config
from understudy.layers.kd_layer import KDLayer, WithLayer
from understudy.layers.reused_head import Translator
from understudy.models.adapters import file
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.training.devices import ComputeSettings

_LIBRARIES: dict[str, Library] = {
    "timm": "timm",
    "torchvision": "torchvision",
    "hf": "huggingface",
}
_FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)
_KEPT: dict[type[nn.Module], str] = {KDLayer: "letkd", Translator: "simkd"}
THRESHOLD = 0.5
"""Probability from which a class counts as present where an image may have several."""


def describe(recipe: Recipe, experiment: Experiment, student: Wrapped) -> StudentConfig:
    """Return what is known of a student before it is measured.

    Args:
        recipe: The recipe of the run.
        experiment: What it has built.
        student: The student, or its moving average.
    """
    spec = networks.completed(recipe.student, "student")
    plain, boxes = student.plain(), experiment.task.truth == "objects"
    kept, teachers = _kept_layers(plain), _teachers(recipe, experiment)
    steps = _preprocessing(recipe, experiment, student)
    library = "detector" if boxes else library_of(spec.name)
    timm = {}
    if library == "timm" and not kept:
        timm = timm_config(plain, spec, steps, student.num_classes, experiment.classes)
    return StudentConfig(
        task=recipe.task,
        library=library,
        network=spec,
        preprocessing=steps,
        num_classes=student.num_classes,
        classes=experiment.classes,
        gives_scores=experiment.distiller.trainable.gives_scores,
        timm=timm,
        kept=kept,
        detector=_detector(plain) if boxes else None,
        threshold=THRESHOLD if experiment.task.truth == "classes" else None,
        initial=_initial(recipe.student, student),
        teacher=teachers.pop("", None),
        teachers=teachers,
        recipe=recipe.digest,
        data=data_of(recipe, experiment.images.counts()),
        huggingface=_huggingface(plain, student) if library == "huggingface" else None,
        factory=_factory(spec, plain, student) if library == "file" else None,
        version=__version__,
    )


def data_of(recipe: Recipe, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the data of a run: source, images by split, labels, name on the hub.

    Folders of this machine are not part of it.

    Args:
        recipe: The recipe of the run.
        splits: Split → number of its images.
    """
    source, root = recipe.data.source, recipe.data.root
    name = {"name": root} if source == "hf" and not Path(root).exists() else {}
    labels = {} if recipe.data.labels is None else {"labels": recipe.data.labels}
    return {"source": source, **name, **labels, "splits": dict(splits)}


def library_of(name: str) -> Library:
    """Return who builds the network of a name."""
    if ".py:" in name:
        return "file"
    return _LIBRARIES.get(name.partition(":")[0], "understudy")


def measured(
    config: StudentConfig,
    evaluation: Mapping[str, Any],
    settings: ComputeSettings,
    *,
    best: bool = False,
) -> StudentConfig:
    """Return a description with the metrics of the last student, or of the best one.

    Args:
        config: The description.
        evaluation: Content of `evaluation.json`.
        settings: Precision and memory format in which the student was evaluated.
        best: Take the best epoch's metrics.
    """
    part = evaluation["best"] if best else evaluation
    about = {key: evaluation[key] for key in ("split", "images", "origin")}
    epoch = {"epoch": part["epoch"]} if best else {}
    measures = {**(part["metrics"] or {}), **(part["fidelity"] or {})}
    # Convolutions in channels last round otherwise, by which scores that almost agree may change
    # their order.
    about |= {"precision": settings.precision, "channels_last": settings.channels_last}
    return replace(config, metrics=measures, measured=about | epoch)


def _preprocessing(recipe: Recipe, experiment: Experiment, student: Wrapped) -> Preprocessing:
    view = experiment.test.views.evaluation
    steps = Preprocessing(
        resize=view.resize,
        crop=view.crop,
        squash=view.squash,
        rounded=view.rounded,
        reduced=recipe.data.decoded_side,
    )
    return ended_by(steps, student.input) if isinstance(student, Network) else steps


def _initial(spec: recipes.Network, student: Wrapped) -> dict[str, Any]:
    weights = spec.weights or spec.options.get("backbone_weights", "")
    return {"weights": str(weights), "license": licence_of(spec, student.module)}


def _teachers(recipe: Recipe, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return name → what is known of a teacher; see `Recipe.each_teacher`."""
    teachers = {}
    for each in experiment.distiller.distillations:
        network, spec = each.teacher.network, networks.spec_of(recipe, key_of(each.name))
        teachers[each.name] = {
            "name": network.name,
            "weights": spec.weights,
            "digest": experiment.digests.get(teacher_digest(each.name)),
            "license": licence_of(replace(spec, name=network.name), network.module),
        }
    return teachers


def _kept_layers(module: nn.Module) -> dict[str, str]:
    return {
        path: _KEPT.get(type(block.layer), type(block.layer).__name__)
        for path, block in module.named_modules()
        if isinstance(block, WithLayer)
    }


def _huggingface(module: Any, student: Wrapped) -> dict[str, Any]:
    """Return the configuration by which transformers builds a student with its classes."""
    config: dict[str, Any] = module.config.to_dict()
    count = student.num_classes
    if count is None:
        return config
    names = student.class_names or tuple(f"LABEL_{number}" for number in range(count))
    return config | {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _factory(spec: recipes.Network, module: nn.Module, student: Wrapped) -> dict[str, Any]:
    """Return how the function of a Python file builds a student without Understudy."""
    takes_classes = file.takes_classes(spec.name)
    count = {"num_classes": student.num_classes} if takes_classes else {}
    path = student.classifier.removesuffix(".classifier") if isinstance(student, Network) else ""
    return {
        "arguments": {**count, **spec.options},
        "path": path,
        "classifier": "" if takes_classes or not path else _code_of(module.get_submodule(path)),
        "needs_understudy": _imports_understudy(Path(spec.name.rpartition(":")[0])),
    }


def _code_of(layer: nn.Module) -> str:
    """Return the call that builds a classifier."""
    if isinstance(layer, nn.Linear):
        sizes = f"{layer.in_features}, {layer.out_features}"
        return f"torch.nn.Linear({sizes}, bias={layer.bias is not None})"
    assert isinstance(layer, nn.Conv2d)
    sizes = f"{layer.in_channels}, {layer.out_channels}"
    return f"torch.nn.Conv2d({sizes}, 1, bias={layer.bias is not None})"


def _imports_understudy(path: Path) -> bool:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for x in nodes if isinstance(x, ast.Import) for alias in x.names]
    names += [x.module or "" for x in nodes if isinstance(x, ast.ImportFrom)]
    return any(name.partition(".")[0] == "understudy" for name in names)


def _detector(module: Any) -> dict[str, Any]:
    """Return sizes, anchors and thresholds of a detector of torchvision."""
    transform, head = module.transform, getattr(module, "roi_heads", module)
    anchors = module.rpn if hasattr(module, "rpn") else module
    sizes = {
        "min_size": list(transform.min_size),
        "max_size": transform.max_size,
        "fixed_size": list(transform.fixed_size) if transform.fixed_size else None,
        "mean": list(transform.image_mean),
        "std": list(transform.image_std),
    }
    body = getattr(module.backbone, "body", None)
    return {
        **sizes,
        **(_stages(module, body) if isinstance(body, IntermediateLayerGetter) else {}),
        "frozen_norms": any(isinstance(x, _FROZEN) for x in module.modules()),
        "anchors": _anchors(anchors.anchor_generator),
        "score_threshold": head.score_thresh,
        "nms_threshold": head.nms_thresh,
        "detections_per_image": head.detections_per_img,
    }


def _stages(module: Any, body: IntermediateLayerGetter) -> dict[str, Any]:
    """Return the maps of torchvision's backbone under a pyramid, by the path of their stages."""
    blocks = getattr(getattr(module.backbone, "fpn", None), "inner_blocks", ())
    layers = dict(body.return_layers)
    return {
        "layers": layers,
        "widths": [block[0].in_channels for block in blocks],
        "features": ".features" if all(path.isdecimal() for path in layers) else "",
    }


def _anchors(anchors: Any) -> dict[str, Any]:
    if isinstance(anchors, AnchorGenerator):
        return {
            "sizes": [list(sizes) for sizes in anchors.sizes],
            "aspect_ratios": [list(ratios) for ratios in anchors.aspect_ratios],
        }
    return {
        "aspect_ratios": [list(ratios) for ratios in anchors.aspect_ratios],
        "scales": list(anchors.scales),
        "steps": anchors.steps,
        "clip": anchors.clip,
    }
