"""The file `config.json`: written and read again, and what it says where it is wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from understudy.config.recipe import Network
from understudy.errors import DataError, RunError
from understudy.experiment.student_file.config import FILE, Preprocessing, StudentConfig
from understudy.experiment.student_file.licences import licence_of
from understudy.experiment.student_file.loading_lines import loading_lines
from understudy.experiment.student_file.preprocess import Preprocess
from understudy.experiment.student_file.timm_config import crop_share

STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CONFIG = StudentConfig(
    task="classification",
    library="torchvision",
    network=Network(name="torchvision:resnet18", options={"zero_init_residual": True}),
    preprocessing=Preprocessing(resize=73, crop=64, **STATISTICS),
    num_classes=2,
    classes=("cat", "dog"),
    teacher={"name": "timm:resnet50", "weights": "t", "digest": "abc", "license": None},
    metrics={"top1": 50.0},
    measured={"precision": "fp32"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    CONFIG.write(tmp_path)
    assert StudentConfig.read(tmp_path) == CONFIG


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no config\.json, which says how its student is built"):
        StudentConfig.read(tmp_path)


@pytest.mark.parametrize("key", ["network", "preprocessing", "classes", "recipe"])
def test_a_damaged_file_is_refused(tmp_path: Path, key: str) -> None:
    content = CONFIG.to_dict()
    content["understudy"][key] = 3
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(RunError, match=f"understudy.{key}"):
        StudentConfig.read(tmp_path)


def test_an_unknown_step_is_refused(tmp_path: Path) -> None:
    content = CONFIG.to_dict()
    content["understudy"]["preprocessing"]["sharpen"] = 1
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"from another version: Unknown key 'preprocessing.sharpen"):
        StudentConfig.read(tmp_path)


def test_timm_resizes_to_the_very_pixel() -> None:
    for crop in range(1, 600):
        resized = round(crop * 256 / 224)
        assert math.floor(crop / crop_share(crop, resized)) == resized
        assert crop_share(crop, crop) == 1


def test_a_licence_is_never_guessed(tmp_path: Path) -> None:
    module = timm.create_model("test_resnet")
    assert licence_of(Network(name="timm:test_resnet", weights="own.pth"), module) is None
    published = Network(name="timm:test_resnet", weights="pretrained")
    assert licence_of(published, module) == module.pretrained_cfg.get("license")
    assert licence_of(Network(name="torchvision:resnet18", weights="pretrained"), module) is None
    of_hub = Network(name=f"hf:{tmp_path}")
    assert licence_of(of_hub, nn.Identity()) is None
    for header, licence in (("license: mit", "mit"), ("tags: [a]", None), ("license: [", None)):
        (tmp_path / "README.md").write_text(f"---\n{header}\n---\n# A model\n")
        assert licence_of(of_hub, nn.Identity()) == licence


@pytest.mark.parametrize(
    ("teacher", "initial", "licence"),
    [
        (None, "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("apache-2.0", None, "apache-2.0"),
        ("mit", "mit", "mit"),
        ("cc-by-nc-4.0", "apache-2.0", None),
        ("unknown", "apache-2.0", None),
    ],
)
def test_a_student_of_a_run_has_the_licence_of_what_it_comes_from(
    teacher: str | None, initial: str | None, licence: str | None, tmp_path: Path
) -> None:
    """Of a run in `config.json`; `None` for no teacher, or for random weights."""
    weights = {"weights": "pretrained", "license": initial} if initial else {"weights": ""}
    stated = None if teacher == "unknown" else teacher
    taught = {"name": "big", "weights": "t", "digest": None, "license": stated}
    replace(CONFIG, initial=weights, teacher=taught if teacher else None).write(tmp_path)
    trained = Network(name="timm:test_resnet", weights=str(tmp_path))
    assert licence_of(trained, nn.Identity()) == licence


STEPS = {
    "photographs": Preprocessing(resize=37, crop=32, **STATISTICS),
    "squashed": Preprocessing(resize=32, crop=32, squash=True, **STATISTICS),
    "as floats": Preprocessing(resize=32, crop=32, rounded=False, **STATISTICS),
    "reduced": Preprocessing(resize=37, crop=32, reduced=40, **STATISTICS),
    "resized twice": Preprocessing(resize=32, crop=32, network_size=48, **STATISTICS),
    "grey": Preprocessing(resize=32, crop=32, network_size=28, mean=(0.5,), std=(0.2,)),
    "a detector's": Preprocessing(),
}


@pytest.mark.parametrize("kind", STEPS)
def test_printed_transforms_prepare_a_picture_alike(tmp_path: Path, kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3, 61, 83), generator=draw, dtype=torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    steps = STEPS[kind]
    CONFIG.write(tmp_path)
    code = loading_lines(replace(CONFIG, preprocessing=steps), tmp_path).code
    imports, _, rest = code.partition("\n\n")
    defined: dict[str, object] = {}
    exec(f"{imports}\n{rest[rest.index('transform =') :]}", defined)
    assert defined["classes"] == ["cat", "dog"]
    transform = defined["transform"]
    assert callable(transform)
    prepared = Preprocess(steps)(picture)
    torch.testing.assert_close(prepared, transform(picture), atol=1e-6, rtol=0)
    assert torch.equal(prepared, Preprocess(steps)(pixels))
    assert prepared.shape[0] == steps.channels
    assert steps.size in (None, prepared.shape[1])


@pytest.mark.parametrize("picture", [torch.zeros(3, 8, 8), torch.zeros(8, 8), "a.jpg"])
def test_what_is_no_picture_is_refused(picture: object) -> None:
    with pytest.raises(DataError, match="must be an image of Pillow or a uint8 tensor"):
        Preprocess(STEPS["photographs"])(picture)  # type: ignore[arg-type]
