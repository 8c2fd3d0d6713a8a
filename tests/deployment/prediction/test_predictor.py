"""Predictions equal what evaluation computed of the same images, whatever form they come in."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import understudy
from tests.support.trained_students import NAMES
from understudy.data.sources._listing import list_images
from understudy.deployment.prediction.predictor import (
    Boxes,
    Classes,
    Failed,
    LabelSet,
    Predictor,
    Vector,
)
from understudy.errors import DataError, RecipeError, RunError
from understudy.experiment import build
from understudy.experiment.run_directory import Run
from understudy.tasks import Outputs


@pytest.fixture(scope="module")
def predictor(saved_comparison: Path) -> Predictor:
    return understudy.load(saved_comparison / "kd" / "seed0", device="cpu")


@pytest.fixture(scope="module")
def tests(saved_comparison: Path) -> list[Path]:
    """The test images of the run, in the order of its source."""
    folder = saved_comparison.parent / "images" / "test"
    return [file for name in NAMES for file in list_images(folder / name, deep=True).images]


@torch.no_grad()
def evaluated(path: Path) -> Outputs:
    """Outputs of the student on the test images of its run, as evaluation computes them."""
    trained = build.trained_student(Run(path).recipe, path / "student.safetensors")
    trained.student.eval()
    batches = trained.test.single_pass(augmented=False)
    return trained.task.concatenate(
        [trained.task.collect(trained.student.outputs(batch), batch) for batch in batches]
    )


def test_classes_are_those_of_the_evaluation(
    predictor: Predictor, tests: list[Path], saved_comparison: Path
) -> None:
    predictions = predictor.predict(tests)
    run = Run(saved_comparison / "kd" / "seed0")
    labels = [NAMES.index(file.parent.name) for file in tests]
    hits = [
        isinstance(each, Classes) and each.numbers[0] == label
        for each, label in zip(predictions, labels, strict=True)
    ]
    assert "".join("01"[hit] for hit in hits) == run.outcomes["correct"]
    expected = evaluated(run.path)["logits"].softmax(1).sort(descending=True)
    for each, values, numbers in zip(predictions, *expected, strict=True):
        assert isinstance(each, Classes)
        assert each.numbers == tuple(numbers.tolist())
        assert each.probabilities == pytest.approx(values.tolist(), abs=1e-6)
        assert each.labels == tuple(NAMES[number] for number in each.numbers)
        assert (each.label, each.probability) == (each.labels[0], each.probabilities[0])


def test_label_sets_are_those_of_the_evaluation(saved_labeller: Path) -> None:
    predictor = understudy.load(saved_labeller, device="cpu")
    images = saved_labeller.parent / "images"
    expected = evaluated(saved_labeller)["logits"].sigmoid()
    for each, row in zip(predictor.predict(images, threshold=0), expected, strict=True):
        assert isinstance(each, LabelSet)
        assert [each.probabilities[each.numbers.index(k)] for k in range(len(row))] == (
            pytest.approx(row.tolist(), abs=1e-5)
        )
    for each, row in zip(predictor.predict(images), expected, strict=True):
        assert isinstance(each, LabelSet)
        assert set(each.numbers) == set((row >= 0.5).nonzero().flatten().tolist())
        assert each.threshold == 0.5


def test_boxes_are_those_of_the_evaluation(saved_detector: Path) -> None:
    predictor = understudy.load(saved_detector, device="cpu")
    outputs = evaluated(saved_detector)
    predictions = predictor.predict(saved_detector.parent / "images", threshold=0)
    for image, each in enumerate(predictions):
        assert isinstance(each, Boxes)
        rows = outputs["image"] == image
        assert len(each.scores) == int(rows.sum()) > 0
        assert each.numbers == tuple(outputs["classes"][rows].tolist())
        assert each.scores == pytest.approx(outputs["scores"][rows].tolist(), abs=1e-5)
        boxes = torch.tensor(each.boxes)
        torch.testing.assert_close(boxes, outputs["boxes"][rows], atol=1e-3, rtol=1e-4)
        assert (each.width, each.height) == (96, 96)
    least = sorted(predictions[0].scores)[-2]  # type: ignore[attr-defined]
    (first,) = predictor.predict(saved_detector.parent / "images" / "0.png", threshold=least)
    assert len(first.scores) == 2  # type: ignore[attr-defined]


def test_forms_of_pictures_can_be_mixed(predictor: Predictor, tests: list[Path]) -> None:
    image = Image.open(tests[0])
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    mixed = [str(tests[0]), image, array, tensor, tensor / 255, tests[1]]
    *same, other = predictor.predict(mixed, batch=4)
    first = same[0].to_dict()
    for each in same:
        assert each.to_dict()["labels"] == first["labels"]
        assert each.to_dict()["probabilities"] == pytest.approx(first["probabilities"], abs=1e-6)
    assert other.to_dict()["probabilities"] != pytest.approx(first["probabilities"], abs=1e-6)
    assert [each.name for each in same[1:3]] == ["picture 1", "picture 2"]
    (alone,) = predictor.predict(array)
    assert alone.to_dict()["labels"] == first["labels"]


def test_a_picture_of_one_pixel_and_a_thin_one(predictor: Predictor, tmp_path: Path) -> None:
    for name, size in {"one.png": (1, 1), "thin.png": (1, 90)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    for each in predictor.predict(tmp_path):
        assert sum(each.to_dict()["probabilities"]) == pytest.approx(1)


class Resizing(nn.Module):
    """A detector that resizes as torchvision's do, and detects nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(32, 64, [0.0] * 3, [1.0] * 3)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.transform(images)
        none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}
        return [none for _ in images]


def test_a_picture_that_is_too_narrow_for_a_detector_fails_alone() -> None:
    """Its shorter side would be reduced to nothing."""
    predictor = Predictor(Resizing(), lambda x: x / 255, task="detection", device="cpu")
    narrow, usual = Image.new("RGB", (9000, 1)), Image.new("RGB", (40, 30))
    first, second, third = predictor.stream([usual, narrow, usual])
    assert isinstance(first, Boxes)
    assert isinstance(second, Failed)
    assert "picture 1, 9000 × 1 pixels, cannot be computed: Input and output sizes" in second.error
    assert third == replace(first, name="picture 2")


def test_a_boxes_scores_do_not_depend_on_other_pictures(saved_detector: Path) -> None:
    predictor = understudy.load(saved_detector, device="cpu")
    one, large = Image.new("RGB", (1, 1)), Image.new("RGB", (300, 200), "red")
    alone = predictor.predict([one], threshold=0)[0]
    beside, after = predictor.predict([one, large], threshold=0)
    assert alone == beside
    assert (after.width, after.height) == (300, 200)  # type: ignore[attr-defined]


def test_what_cannot_be_read_stops_predict_and_not_stream(
    predictor: Predictor, tests: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    several = [tests[0], tmp_path / "a.pdf", tmp_path / "missing.png", tests[1]]
    with pytest.raises(DataError, match=r"a.pdf cannot be read .*\. Nor can 1 other be used."):
        predictor.predict(several)
    first, broken, missing, last = predictor.stream(several, batch=2)
    assert isinstance(broken, Failed)
    assert isinstance(missing, Failed)
    assert missing.to_dict() == {"name": missing.name, "error": missing.error}
    assert [first.name, last.name] == [str(tests[0]), str(tests[1])]


def test_no_more_than_two_batches_are_read_ahead(predictor: Predictor) -> None:
    asked: list[int] = []

    def pictures() -> Iterator[Image.Image]:
        for number in range(30):
            asked.append(number)
            yield Image.new("RGB", (40, 40))

    stream = predictor.stream(pictures(), batch=3)
    for number in range(30):
        next(stream)
        assert len(asked) <= number + 2 * 3


def test_predictions_are_plain_data(predictor: Predictor, tests: list[Path]) -> None:
    predictions = predictor.predict(tests[:2], top=2)
    assert json.loads(predictions.to_json()) == predictions.to_dict()
    assert list(predictions.to_dict()[0]) == ["name", "labels", "probabilities", "numbers"]
    frame = predictions.to_frame()
    columns = ["name", "label", "probability", "label_2", "probability_2"]
    assert list(frame.columns) == columns == list(predictor.decision(top=2).columns)
    assert predictions.table().count("\n") == 3
    assert "<td>" in predictions._repr_html_()
    assert predictions[:1].to_dict() == predictions.to_dict()[:1]


def test_last_and_best_student_are_told_apart(
    saved_comparison: Path, tmp_path: Path, predictor: Predictor
) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved_comparison / "kd" / "seed0", run)
    assert understudy.load(run, device="cpu").source.startswith("timm:test_efficientnet in ")
    (run / "best").mkdir(exist_ok=True)
    for name in ("student.safetensors", "config.json"):
        shutil.copy(run / name, run / "best" / name)
    last, best = (understudy.load(path, device="cpu") for path in (run, run / "best"))
    assert last.source.endswith(f"of the last epoch (that of the best one: {run / 'best'})")
    assert best.source.endswith("of the best epoch")
    assert best.classes == last.classes == predictor.classes == NAMES


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("classification", {"threshold": 0.5}, "choose by `top` how many"),
        ("classification", {"top": 0}, "give 1 or more"),
        ("classification", {"batch": 0}, "A batch cannot have 0 pictures"),
        ("multilabel", {"top": 3}, "leave it out"),
        ("multilabel", {"threshold": 1.5}, "give 0 to 1"),
        ("detection", {"top": 3}, "leave it out"),
    ],
)
def test_options_without_a_meaning_are_refused(
    task: str, options: dict[str, Any], sentence: str
) -> None:
    predictor = Predictor(torch.nn.Identity(), torch.Tensor.float, task=task, device="cpu")
    with pytest.raises(RecipeError) as raised:
        predictor.predict([], **options)
    assert sentence in str(raised.value)


def test_a_network_without_classifier_gives_vectors() -> None:
    network = timm.create_model("test_resnet", num_classes=0)
    predictor = Predictor(network, torch.Tensor.float, task="none", has_classifier=False)
    first, second = predictor.predict(torch.zeros(2, 3, 32, 32))
    assert isinstance(first, Vector)
    assert len(first.values) == network.num_features
    assert first.values == second.values


def test_a_number_that_is_none_is_no_prediction() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    torch.nn.init.constant_(network[1].bias, float("nan"))
    predictor = Predictor(network, torch.Tensor.float, task="classification", device="cpu")
    (each,) = predictor.stream(torch.zeros(1, 3, 2, 2))
    assert isinstance(each, Failed)
    assert each.error == "The network gives NaN or infinity for picture 0, row 0."


def test_a_comparison_is_several_students(saved_comparison: Path) -> None:
    with pytest.raises(RunError, match="is a comparison of several students: name a run of it"):
        understudy.load(saved_comparison)
    with pytest.raises(
        RunError, match=r"is an arm of a comparison: name a run of it, .*kd.seed0\."
    ):
        understudy.load(saved_comparison / "kd")
