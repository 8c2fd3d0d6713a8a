"""What timm reads of a student's `config.json`: the arguments and the transform of its network."""

import math
from typing import Any

from torch import nn

from understudy.config.image_size import sides
from understudy.config.recipe import Network
from understudy.experiment.student_file.config import Preprocessing
from understudy.models.pooling import TIMM


def timm_config(
    module: nn.Module,
    network: Network,
    preprocessing: Preprocessing,
    num_classes: int | None,
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return the entries by which `timm.create_model("local-dir:…")` builds and loads a student.

    Args:
        module: The student, as timm built it.
        network: Its part of the recipe.
        preprocessing: Steps that `timm.data.create_transform` is to take.
        num_classes: Number of logits; None without a classifier.
        classes: Names of the classes; empty if unknown.
    """
    own: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    pool = {"global_pool": TIMM[network.pool]} if network.pool else {}
    return {
        "architecture": network.name.removeprefix("timm:").partition(".")[0],
        "num_features": getattr(module, "num_features", None),
        "model_args": {**pool, **network.options, "num_classes": num_classes or 0},
        "pretrained_cfg": {
            **_transform(preprocessing),
            "fixed_input_size": bool(own.get("fixed_input_size", False)),
            "num_classes": num_classes or 0,
            **({"label_names": list(classes)} if classes else {}),
            "pool_size": None,
            "first_conv": own.get("first_conv"),
            "classifier": own.get("classifier"),
        },
    }


def _transform(steps: Preprocessing) -> dict[str, Any]:
    """Return the configuration of timm's transform: the same steps, or the nearest there are."""
    size, interpolation = sides(steps.size or 0), steps.interpolation
    if steps.network_size and steps.resize == steps.crop:
        interpolation = steps.network_interpolation
    scales = (1.0, 1.0)
    if steps.crop and steps.resize and not steps.squash:
        before, after = sides(steps.resize), sides(steps.crop)
        scales = before[0] / after[0], before[1] / after[1]
    shares = (crop_share(n, round(n * scale)) for n, scale in zip(size, scales, strict=True))
    return {
        "input_size": [steps.channels, *size],
        "interpolation": interpolation,
        "crop_pct": min(shares),
        "crop_mode": "squash" if steps.squash else "center",
        "mean": list(steps.mean),
        "std": list(steps.std),
    }


def crop_share(crop: int, resized: int) -> float:
    """Return the share by which timm, which rounds down, resizes to exactly `resized` pixels."""
    share = crop / resized
    while math.floor(crop / share) < resized:
        share = math.nextafter(share, 0)
    return share
