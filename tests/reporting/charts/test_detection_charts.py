"""Pictures of detection and of multi-label recognition: true to what was kept, and readable."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.reporting.test_page import read as read_page
from tests.support.object_directories import (
    SOURCE,
    detected,
    loader,
    recognised,
    write_comparison,
    write_run,
)
from understudy import tasks
from understudy.diagnostics import detection as objects
from understudy.diagnostics import multilabel as decisions
from understudy.diagnostics.directions import labelled_means, to_class_mean
from understudy.diagnostics.thumbnails import encoded
from understudy.functional import cosine
from understudy.metrics import detection as detections
from understudy.reporting import report, terminal_table
from understudy.reporting.charts.precision_recall import precision_recall
from understudy.reporting.charts.samples import samples
from understudy.reporting.collect import read
from understudy.reporting.tables import table
from understudy.tasks.detection import detections_in, ground_truth_in


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detection")
    write_comparison(root, "detection")
    return root


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multilabel")
    write_comparison(root, "multilabel")
    return root


def test_kept_boxes_are_those_of_the_outputs() -> None:
    student, teacher = detected(0.3, 1), detected(0.1, 0)
    for scene in objects.scenes(student, teacher, loader()):
        target = SOURCE.target(scene["index"])
        rows = torch.tensor(scene["truth"])
        torch.testing.assert_close(rows[:, :4], torch.Tensor(target["boxes"]), atol=0.06, rtol=0)
        assert rows[:, 4].tolist() == target["labels"].tolist()
        for name, side in (("student", student), ("teacher", teacher)):
            own = (side["image"] == scene["index"]) & (side["scores"] >= 0.3)
            scores = side["scores"][own].sort(descending=True).values
            assert [row[5] for row in scene[name]] == pytest.approx(scores.tolist(), abs=6e-4)


def test_every_student_is_shown_the_same_few_images() -> None:
    first, second = (objects.scenes(detected(x, 1), None, loader()) for x in (0.1, 0.9))
    assert [s["index"] for s in first] == [s["index"] for s in second] == [0, 4, 8, 11, 15, 19]
    assert [s["picture"] for s in first] == [s["picture"] for s in second]
    assert all(scene["teacher"] is None for scene in first)


def test_difficult_objects_are_told_apart_and_choose_no_image() -> None:
    found = detected(0.1, 0)
    found["true_difficult"] = found["true_image"] == 0
    assert next(s["index"] for s in objects.scenes(found, None, loader())) == 1
    found["true_difficult"] = torch.zeros(len(found["true_image"]), dtype=torch.bool)
    found["true_crowd"] = torch.arange(len(found["true_image"])) == 0
    first = objects.scenes(found, None, loader())[0]
    assert [row[5] for row in first["truth"]] == [0.0] + [1.0] * (len(first["truth"]) - 1)


def test_pictures_are_reduced() -> None:
    image = torch.rand(3, 700, 1000)
    picture = Image.open(io.BytesIO(base64.b64decode(encoded(image, side=320, form="JPEG"))))
    assert picture.size == (320, 224)


def test_curves_of_detection_are_those_that_are_measured() -> None:
    student, teacher = detected(0.3, 1), detected(0.1, 0)
    kept = objects.precision(student, teacher)
    counts = student["true_classes"].bincount(minlength=6)
    assert [entry["count"] for entry in kept] == sorted(counts.tolist(), reverse=True)
    for name, side in (("student", student), ("teacher", teacher)):
        curves = detections.curves(detections_in(side), ground_truth_in(side), 6)
        for entry in kept:
            assert entry[name] == pytest.approx(curves[entry["class"]].precision, abs=6e-4)


def test_curves_of_labels_are_the_best_precision_at_a_recall_or_beyond() -> None:
    outputs = recognised(0.6, 1)
    outputs["labels"] = outputs["labels"].clone()
    outputs["labels"][::5] = -1
    for entry in decisions.precision(outputs, None):
        known = outputs["labels"][:, entry["class"]] >= 0
        scores = outputs["logits"][known, entry["class"]]
        present = outputs["labels"][known, entry["class"]] == 1
        assert entry["count"] == present.sum()
        points = []
        for threshold in scores.tolist():
            hits = (present & (scores >= threshold)).sum().item()
            points.append((hits / entry["count"], hits / (scores >= threshold).sum().item()))
        for step, found in enumerate(entry["student"]):
            beyond = [p for recall, p in points if recall >= step / 100 - 1e-9]
            assert found == pytest.approx(max(beyond, default=0.0), abs=6e-4)


def test_kept_classes_are_those_present_and_those_nearly_said() -> None:
    student = recognised(0.6, 1)
    for scene in decisions.scenes(student, None, loader()):
        row = scene["index"]
        present = {c for c, x in enumerate(SOURCE.labels[row].tolist()) if x == 1}
        probabilities = student["logits"][row].sigmoid().tolist()
        assert set(scene["truth"]) == present
        assert {c for c, _ in scene["student"]} == present | {
            c for c, p in enumerate(probabilities) if p >= 0.3
        }
        assert scene["student"] == sorted(scene["student"], key=lambda pair: -pair[1])


def test_directions_of_several_labels_are_means_over_what_is_present() -> None:
    features, labels = torch.randn(20, 5), SOURCE.labels.clone()
    labels[3] = -1
    means = labelled_means(features, labels)
    cosines = []
    for c in range(6):
        own = [features[i].double() for i in range(20) if labels[i, c] == 1]
        assert means[c].tolist() == pytest.approx(torch.stack(own).mean(0).tolist())
        cosines += [float(cosine(row, means[c])) for row in own]
    found = to_class_mean(features, means, labels)
    assert found["mean"] == pytest.approx(sum(cosines) / len(cosines))


def test_the_page_shows_every_view_of_every_scene(detection: Path) -> None:
    html, page, text = read_page(report(detection))
    assert html.count("data:image/jpeg;base64,") == 6
    assert html.count('<use href="#sample-') == 6 * 3
    assert len(page.ids) == len(set(page.ids))
    assert all(x.startswith(("#", "data:image/jpeg;base64,")) for x in page.addresses)
    kept = json.loads((detection / "nd/seed0/diagnostics.json").read_text())
    rects = re.findall(r'<rect (?:class="ignored" )?style="--of', html)
    control = json.loads((detection / "control/seed0/diagnostics.json").read_text())
    counted = [len(s[k]) for s in kept["scenes"] for k in ("truth", "teacher", "student")]
    assert len(rects) == sum(counted) + sum(len(s["student"]) for s in control["scenes"])
    c, score = kept["scenes"][0]["student"][0][4:]
    assert f"{SOURCE.classes[int(c)]} {score:.2f}" in text
    assert "AP50 of each class, difference from the control" in text
    assert "Direction and norm" not in text


def test_names_stay_inside_and_cover_no_other_name(detection: Path) -> None:
    drawn = samples(read([detection]))
    for tile in (tile for sample in drawn.samples for tile in sample.tiles):
        names = [box.name for box in tile.boxes if box.name]
        assert names or not tile.boxes
        for place, name in enumerate(names):
            assert 0 <= name.across <= 50
            assert 0 <= name.down <= 100
            assert not any(name.overlaps(other) for other in names[:place])


def test_numbers_of_each_class_are_on_the_page(detection: Path) -> None:
    results = read([detection])
    content = json.loads((detection / "comparison.json").read_text())
    drawn = precision_recall(results)
    assert [arm.name for arm in drawn.arms] == ["teacher", "control", "nd"]
    for panel in drawn.panels:
        c = SOURCE.classes.index(panel.name)
        for line, row in zip(panel.curves[1:], content["arms"], strict=True):
            each = [seed[c] for seed in row["per_class"]]
            assert line.average == pytest.approx(sum(each) / len(each))
    _, _, text = read_page(report(detection))
    for word in ("AP50", "AP", "VOC AP", "overlap"):
        assert f" {word} " in text


def test_classes_that_no_object_shows_have_no_picture_and_no_change(tmp_path: Path) -> None:
    write_comparison(tmp_path, "detection", seeds=1)
    file = tmp_path / "comparison.json"
    content = json.loads(file.read_text())
    for arm in content["arms"]:
        arm["per_class"] = [[None, *seed[1:]] for seed in arm["per_class"]]
    content["teacher"]["per_class"][0] = None
    file.write_text(json.dumps(content))
    for path in tmp_path.glob("*/seed0/diagnostics.json"):
        kept = json.loads(path.read_text())
        kept["precision"] = [entry for entry in kept["precision"] if entry["class"] != 0]
        path.write_text(json.dumps(kept))
    html, _, text = read_page(report(tmp_path))
    assert "Not drawn: 1 class that is rarer or absent." in text
    assert html.count('<i class="bar"') == 5


def test_classes_said_are_right_wrong_or_missed(multilabel: Path) -> None:
    drawn = samples(read([multilabel]))
    assert drawn.legend == []
    kinds = set()
    for sample in drawn.samples:
        truth, *tiles = sample.tiles
        present = {shown.text for shown in truth.classes}
        for shown in (shown for tile in tiles for shown in tile.classes):
            said, real = shown.probability >= 0.5, shown.text in present
            kinds.add(shown.kind)
            assert shown.kind == {(True, True): "correct", (False, True): "missed"}.get(
                (said, real), "wrong" if said else "close"
            )
    assert kinds >= {"correct", "missed", "wrong"}
    html, _, text = read_page(report(multilabel))
    assert "<rect style" not in html
    for word in ("mAP", "CF1", "OF1", "missed", "wrong"):
        assert word in text


def test_one_run_has_its_pictures_too(tmp_path: Path) -> None:
    evaluation = write_run(tmp_path / "run", "detection", 0.2, 1)
    _, _, text = read_page(report(tmp_path / "run"))
    assert f"run reaches {evaluation['metrics']['AP50']:.2f} AP50 after 1 epoch." in text
    drawn = samples(read([tmp_path / "run"]))
    assert [tile.name for tile in drawn.samples[0].tiles] == ["ground truth", "teacher", "run"]
    lines = precision_recall(read([tmp_path / "run"])).panels[0].curves
    assert [line.arm.name for line in lines] == ["teacher", "run"]
    assert lines[0].average == pytest.approx(max(evaluation["teacher"]["per_class"]))


def test_runs_on_other_images_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "detection", 0.2, 1)
    write_run(tmp_path / "two", "detection", 0.3, 2)
    file = tmp_path / "two/diagnostics.json"
    kept = json.loads(file.read_text())
    kept["scenes"].reverse()
    file.write_text(json.dumps(kept))
    _, _, text = read_page(report([tmp_path / "one", tmp_path / "two"]))
    assert "Not drawn, since they were tested on other images: two." in text


@pytest.mark.parametrize("task", ["detection", "multilabel"])
def test_terminal_table_fits_into_80_characters(task: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(task)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(terminal_table(root))
    assert "…" not in capture.get()
    assert tasks.find(task).headline in capture.get()


def test_columns_stand_beside_what_ranks(detection: Path) -> None:
    header, *_, nd = table(read([detection]))
    cells = dict(zip(header, nd, strict=True))
    content = json.loads((detection / "comparison.json").read_text())
    values = content["arms"][1]["metrics"]
    for title, key in (("AP50", "AP50"), ("AP", "AP"), ("VOC AP", "voc_AP50")):
        assert cells[title].startswith(f"{sum(values[key]) / 3:.2f} ± ")
