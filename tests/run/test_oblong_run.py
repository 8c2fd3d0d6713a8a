"""Images that are higher than wide, from the recipe to the files of the student."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import v2

from tests.support.trained_students import NAMES, photographs
from understudy import load
from understudy.config.recipe import Network as Spec
from understudy.config.recipe import Recipe
from understudy.deployment.export.graph import Prepared
from understudy.deployment.saved_student import open_student
from understudy.experiment.evaluate import evaluate
from understudy.experiment.probe import probe
from understudy.experiment.student_file.loading_lines import loading_lines
from understudy.experiment.train import distill

SIZE = [64, 32]
TRANSFORMER = {"depth": 1, "embed_dim": 32, "num_heads": 2}


@dataclass(frozen=True)
class Oblong:
    """A run and the folder of its images."""

    run: Path
    images: Path

    def pictures(self) -> list[Path]:
        return sorted((self.images / "test").glob("*/*.png"))


@pytest.fixture(scope="module")
def oblong(tmp_path_factory: pytest.TempPathFactory) -> Oblong:
    root = tmp_path_factory.mktemp("oblong")
    images = photographs(root / "images")
    weights = root / "teacher.pt"
    network = timm.create_model("deit_tiny_patch16_224", num_classes=len(NAMES), **TRANSFORMER)
    torch.save(network.state_dict(), weights)
    recipe = {
        "data": {"source": "folder", "root": str(images), "size": SIZE},
        "teacher": {
            "name": "timm:deit_tiny_patch16_224",
            "weights": str(weights),
            "size": SIZE,
            "options": TRANSFORMER,
        },
        "student": {"name": "timm:deit_tiny_patch16_224", "options": TRANSFORMER},
        "methods": {"queue_kl": {"queue": 4}},
        "bank": {"path": str(root / "bank"), "views": 1, "features": ["cls", "patches"]},
        "training": {"epochs": 1, "batch": 8, "optimizer": "sgd", "lr": 0.01},
    }
    return Oblong(distill(recipe, out=root / "run", device="cpu").path, images)


def opened(picture: Path) -> Image.Image:
    with Image.open(picture) as file:
        return file.convert("RGB")


def test_the_student_is_built_for_the_size(oblong: Oblong) -> None:
    recipe = Recipe.read(oblong.run / "recipe.yaml")
    assert recipe.student.size == (64, 32)
    assert recipe.student.options["img_size"] == SIZE
    module: Any = open_student(oblong.run).module
    assert module.patch_embed.grid_size == (4, 2)


def test_every_transform_of_the_student_is_that_of_the_evaluation(oblong: Oblong) -> None:
    student = open_student(oblong.run)
    model = timm.create_model(f"local-dir:{oblong.run}", pretrained=True).eval()
    of_timm = create_transform(**resolve_data_config(model=model))
    for picture in oblong.pictures():
        image = opened(picture)
        prepared = student.preprocess(image)
        assert prepared.shape == (3, *SIZE)
        assert torch.equal(of_timm(image), prepared)
        assert torch.equal(model(prepared[None]), student.module(prepared[None]))


def test_lines_without_timm_prepare_alike(oblong: Oblong) -> None:
    student = open_student(oblong.run)
    spec = Spec(name="torchvision:resnet18")
    of_torchvision = replace(student.config, library="torchvision", network=spec, timm={})
    code = loading_lines(of_torchvision, oblong.run / "student.safetensors").code
    scope: dict[str, Any] = {"v2": v2}
    begin = code.index("transform = ")
    exec(code[begin : code.index("\n])", begin) + 3], scope)
    for picture in oblong.pictures():
        image = opened(picture)
        assert torch.equal(scope["transform"](image), student.preprocess(image))


def test_a_graph_prepares_alike(oblong: Oblong) -> None:
    steps = open_student(oblong.run).config.preprocessing
    inside = Prepared(steps, bytes=True)
    for picture in oblong.pictures():
        image = opened(picture)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        # Pillow rounds to whole numbers, the graph does not.
        apart = inside(pixels[None])[0] - open_student(oblong.run).preprocess(image)
        assert apart.abs().max() < 1.1 / 255 / min(steps.std)


def test_predictions_are_those_of_the_evaluation(oblong: Oblong) -> None:
    truth = [picture.parent.name for picture in oblong.pictures()]
    predicted = load(oblong.run).predict([str(p) for p in oblong.pictures()])
    correct = sum(p.labels[0] == name for p, name in zip(predicted, truth, strict=True))
    accuracy = json.loads((oblong.run / "evaluation.json").read_text())["metrics"]["top1"]
    assert 100 * correct / len(truth) == pytest.approx(accuracy)
    assert evaluate(oblong.run, device="cpu").metrics["top1"] == pytest.approx(accuracy)


def test_the_run_can_be_probed(oblong: Oblong) -> None:
    assert set(probe(oblong.run, device="cpu").accuracies) == {"student", "teacher"}
