"""Adapter for image models saved by Hugging Face transformers in a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from understudy.config.extras import installation
from understudy.config.image_size import of_sides
from understudy.errors import NetworkError
from understudy.models.preprocessing import Input

_INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Number of PIL's resampling filter, as in the files of image processors → name."""


def build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """Load the model and weights in a folder; return it with the input contract saved there.

    `num_classes` and `pretrained` are ignored: the folder determines both.

    Raises:
        NetworkError: transformers is not installed, the folder does not hold a model and its image
            processor, the weights lack some of the model's tensors, or the options ask for code of
            the folder to be executed.
    """
    try:
        import transformers
    except ImportError as error:
        raise NetworkError(
            f"hf: networks need transformers; install it with: {installation('hf')}."
        ) from error
    if options.get("trust_remote_code"):
        raise NetworkError(
            f"hf:{name} cannot have the option trust_remote_code: code in a folder of Hugging Face "
            "is not executed. Build the network by a function of your own "
            "(path/to/file.py:factory)."
        )
    # Left open, transformers would ask on the terminal.
    options = {**options, "trust_remote_code": False}
    folder = Path(name)
    config = _json(folder / "config.json")
    classifies = any("ForImageClassification" in a for a in config.get("architectures") or ())
    kind = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
    try:
        module, info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:
        raise NetworkError(f"transformers cannot load the model in {folder}: {error}") from error
    if info["missing_keys"]:
        raise NetworkError(
            f"The weights in {folder} lack {', '.join(sorted(info['missing_keys'])[:3])}, which "
            "would be left at random; save the whole model, or leave the part out with an option "
            "such as add_pooling_layer: false."
        )
    return module, _input(_json(folder / "preprocessor_config.json"))


def _json(file: Path) -> dict[str, Any]:
    """Read a JSON file of the folder."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NetworkError(
            f"{file} cannot be read: {error}. Save model and image processor there with their "
            "save_pretrained(folder)."
        ) from error
    return content


def _input(content: dict[str, Any]) -> Input:
    """Convert an image processor's settings to an input contract."""
    size = content.get("crop_size") if content.get("do_center_crop") else content.get("size")
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        height, width = size.get("height") or edge, size.get("width") or edge
        size = of_sides(height, width) if height and width else size
    if not isinstance(size, int | tuple):
        raise NetworkError(f"The image processor names no size of its images: {size!r}.")
    resample = content.get("resample")
    if resample not in _INTERPOLATION:
        raise NetworkError(
            f"The image processor resizes by filter {resample!r}; known are those of PIL with the "
            f"numbers {', '.join(map(str, _INTERPOLATION))}."
        )
    scale = content.get("do_normalize", True)
    return Input(
        size=size,
        mean=tuple(content["image_mean"]) if scale else Input.mean,
        std=tuple(content["image_std"]) if scale else Input.std,
        interpolation=_INTERPOLATION[resample],
    )


def class_names(module: nn.Module) -> tuple[str, ...]:
    """Return the class names that a model was saved with, in the order of its logits.

    Empty if it has none, or only those that transformers makes up (`LABEL_0`).
    """
    id2label = getattr(getattr(module, "config", None), "id2label", None) or {}
    numbered = {int(number): str(name) for number, name in id2label.items()}
    names = tuple(numbered.get(number, "") for number in range(len(numbered)))
    made_up = all(name == f"LABEL_{number}" for number, name in enumerate(names))
    return () if made_up or "" in names else names
