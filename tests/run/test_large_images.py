"""Networks of timm at 224 pixels, on photographs in a folder: the bank gives what they give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from understudy.config.recipe import Recipe
from understudy.experiment import bank_attach, build

IMAGES, VIEWS = 6, 2


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes, of images that have structure at every scale."""
    root, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("test", 2)):
        for i in range(count):
            coarse = Image.fromarray(random.integers(256, size=(6, 8, 3), dtype=np.uint8))
            file = root / split / f"class{i % 2}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse.resize((320, 240), Image.Resampling.BICUBIC).save(file, quality=92)
    return root


@pytest.fixture(scope="module")
def wanted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("teacher") / "resnet18.safetensors"
    save_file(timm.create_model("resnet18", num_classes=2).state_dict(), weights)
    return Recipe.from_dict(
        {
            "data": {
                "source": "folder",
                "root": str(photographs),
                "augment": "resized_crop",
                "jitter": 0.4,
            },
            "student": {"name": "timm:test_resnet"},
            "teacher": {"name": "timm:resnet18", "weights": str(weights)},
            "methods": {"lshfm": {"hashes": 512}, "kd": {}},
            "training": {"batch": IMAGES, "epochs": VIEWS},
        }
    )


@pytest.mark.parametrize(
    ("dtype", "rounding"), [("fp32", 0.0), ("fp16", 2**-11), ("int8", 0.5 / 127)]
)
def test_a_replayed_teacher_is_the_live_one(
    wanted: Recipe, dtype: str, rounding: float, tmp_path: Path
) -> None:
    bank = replace(wanted.bank, path=str(tmp_path), dtype=dtype, views=VIEWS)  # type: ignore[arg-type]
    experiment = build.experiment(replace(wanted, bank=bank))
    bank_attach.attach(experiment, replace(wanted, bank=bank))
    distiller = experiment.distiller
    assert distiller.teacher is not None
    for view in range(VIEWS):
        (batch,) = next(experiment.train.epoch(view))
        distiller.observe(batch)
        stored, live = distiller.observe(batch), distiller.teacher(batch)
        for name, x in stored.items():
            scale = live[name].abs()
            if dtype == "int8":  # whose step is that of the largest number of a row
                scale = scale.amax(1, keepdim=True)
            # The smallest numbers of fp16 have fewer digits: steps of 2⁻²⁴.
            assert (
                (x - live[name]).abs() <= rounding * scale * 1.001 + 2**-25 * (rounding > 0)
            ).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distiller.teacher.network, "features", _never)
        for view in range(VIEWS):
            (batch,) = next(experiment.train.epoch(view))
            distiller.observe(batch)


def _never(images: torch.Tensor) -> dict[str, torch.Tensor]:
    raise AssertionError("the teacher ran although everything is stored")
