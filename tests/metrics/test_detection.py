"""Metrics of detections against plain loops."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy.batch import Batch, Objects
from understudy.experiment.fidelity import evaluation
from understudy.metrics.detection import (
    Detections,
    GroundTruth,
    PrecisionRecallCurve,
    coco,
    curves,
    fidelity,
    voc,
)
from understudy.tasks import Outputs
from understudy.tasks.detection import Detection

CLASSES = 4
"""Of which the last one has no truth."""

SIZES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def scene(seed: int, *, objects: int = 40, detections: int = 160) -> tuple[Detections, GroundTruth]:
    """Random objects, and detections near them, in a dozen images with odd numbers."""
    torch.manual_seed(seed)
    numbers = torch.randperm(10**6)[:12] * 10**6
    image, classes = torch.randint(10, (objects,)), torch.randint(CLASSES - 1, (objects,))
    corner, sides = 200 * torch.rand(objects, 2), 4 + 120 * torch.rand(objects, 2) ** 2
    boxes = torch.cat([corner, corner + sides], dim=1)
    difficult, crowd = torch.rand(objects) < 0.2, torch.rand(objects) < 0.1
    areas = sides.prod(1) * (0.5 + torch.rand(objects) / 2)
    truth = GroundTruth(numbers[image], boxes, classes, difficult, crowd, areas)
    like = torch.randint(objects, (detections,))
    shift = torch.randn(detections, 4) * sides[like].repeat(1, 2) * 0.15 * torch.rand(detections, 1)
    moved = boxes[like] + shift
    lost, astray = torch.rand(detections) < 0.1, torch.rand(detections) < 0.1
    found = Detections(
        numbers[torch.where(lost, torch.randint(12, (detections,)), image[like])],
        torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], dim=1),
        torch.where(astray, torch.randint(CLASSES, (detections,)), classes[like]),
        torch.rand(detections),
    )
    return found, truth


def crossed(a: Tensor, b: Tensor) -> float:
    """Area that two boxes share."""
    width = min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0]))
    height = min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1]))
    return max(width, 0.0) * max(height, 0.0)


def area(box: Tensor) -> float:
    return float(box[2] - box[0]) * float(box[3] - box[1])


def overlap(a: Tensor, b: Tensor) -> float:
    return crossed(a, b) / (area(a) + area(b) - crossed(a, b))


def by_score(found: Detections, c: int) -> list[int]:
    rows = [i for i in range(len(found.scores)) if found.classes[i] == c]
    return sorted(rows, key=lambda i: -float(found.scores[i]))


def plain_coco(
    found: Detections,
    truth: GroundTruth,
    c: int,
    least: float,
    size: tuple[float, float],
    most: int,
) -> tuple[list[bool], int]:
    """Of the detections of a class that count, from the best one: hit or not; objects sought."""
    own = [j for j in range(len(truth.classes)) if truth.classes[j] == c]
    inside = {j: size[0] <= float(truth.areas[j]) <= size[1] for j in own}
    special = {j: bool(truth.difficult[j] or truth.crowd[j]) for j in own}
    taken: set[int] = set()
    seen: dict[int, int] = {}
    hits: list[bool] = []
    for i in by_score(found, c):
        image, box = int(found.image[i]), found.boxes[i]
        seen[image] = seen.get(image, 0) + 1
        if seen[image] > most:
            continue
        here = [j for j in own if truth.image[j] == image]
        near = {j: overlap(box, truth.boxes[j]) for j in here}
        free = [j for j in here if not special[j] and j not in taken and near[j] >= least]
        sought = [j for j in free if inside[j]]
        if sought:
            taken.add(max(sought, key=near.__getitem__))
            hits.append(True)
            continue
        covered = any(
            crossed(box, truth.boxes[j]) / area(box) >= least for j in here if truth.crowd[j]
        )
        if covered or any(truth.difficult[j] and near[j] >= least for j in here):
            continue
        if free:
            taken.add(max(free, key=near.__getitem__))
        elif size[0] <= area(box) <= size[1]:
            hits.append(False)
    return hits, sum(inside[j] and not special[j] for j in own)


def plain_precision(hits: list[bool], positives: int, recalls: list[float]) -> list[float]:
    """The best precision at each recall or a higher one."""
    points = []
    for rank in range(1, len(hits) + 1):
        count = sum(hits[:rank])
        points.append((count / positives, count / rank))
    return [max((p for r, p in points if r >= recall), default=0.0) for recall in recalls]


def plain_voc(found: Detections, truth: GroundTruth, c: int) -> tuple[list[bool], int]:
    own = [j for j in range(len(truth.classes)) if truth.classes[j] == c]
    taken: set[int] = set()
    hits: list[bool] = []
    for i in by_score(found, c):
        near = {
            j: overlap(found.boxes[i], truth.boxes[j])
            for j in own
            if truth.image[j] == found.image[i]
        }
        best = max(near, key=near.__getitem__, default=None)
        if best is None or near[best] < 0.5:
            hits.append(False)
        elif not (truth.difficult[best] or truth.crowd[best]):
            hits.append(best not in taken)
            taken.add(best)
    return hits, sum(not (truth.difficult[j] or truth.crowd[j]) for j in own)


@pytest.mark.parametrize("seed", range(3))
def test_coco_equals_plain_loops(seed: int) -> None:
    found, truth = scene(seed)
    whole = coco(found, truth, CLASSES)
    recalls = np.linspace(0, 1, 101).tolist()

    def precision(c: int, least: float, size: str) -> float | None:
        hits, positives = plain_coco(found, truth, c, least, SIZES[size], 100)
        return float(np.mean(plain_precision(hits, positives, recalls))) if positives else None

    def average(least: list[float], size: str = "") -> float | None:
        each = [precision(c, x, size) for c in range(CLASSES) for x in least]
        known = [x for x in each if x is not None]
        return 100 * sum(known) / len(known) if known else None

    every = np.linspace(0.5, 0.95, 10).tolist()
    expected = {f"AP{size}": average(every, size) for size in SIZES}
    expected |= {"AP50": average([0.5]), "AP75": average([0.75])}
    assert {name: whole.metrics[name] for name in expected} == pytest.approx(expected)
    for c in range(CLASSES - 1):
        assert whole.ap50[c] == pytest.approx(100 * (precision(c, 0.5, "") or 0))
        assert whole.ap[c] == pytest.approx(
            100 * np.mean([precision(c, x, "") or 0 for x in every])
        )
    assert whole.ap[-1] is whole.ap50[-1] is None


@pytest.mark.parametrize("most", [1, 10, 100])
def test_recall_of_coco_equals_plain_loops(most: int) -> None:
    found, truth = scene(7)
    shares = []
    for c in range(CLASSES - 1):
        for least in np.linspace(0.5, 0.95, 10).tolist():
            hits, positives = plain_coco(found, truth, c, least, SIZES[""], most)
            shares.append(sum(hits) / positives)
    metrics = coco(found, truth, CLASSES).metrics
    assert metrics[f"AR{most}"] == pytest.approx(100 * np.mean(shares))


@pytest.mark.parametrize("seed", range(3))
def test_voc_equals_plain_loops(seed: int) -> None:
    found, truth = scene(seed)
    areas, elevens = voc(found, truth, CLASSES), voc(found, truth, CLASSES, points="eleven")
    assert areas[-1] is elevens[-1] is None
    for c in range(CLASSES - 1):
        hits, positives = plain_voc(found, truth, c)
        recalls = [n / positives for n in range(1, positives + 1)]
        assert areas[c] == pytest.approx(100 * np.mean(plain_precision(hits, positives, recalls)))
        tenths = [n / 10 - 1e-9 for n in range(11)]
        assert elevens[c] == pytest.approx(100 * np.mean(plain_precision(hits, positives, tenths)))


def test_curves_are_the_envelope_as_far_as_it_goes() -> None:
    found, truth = scene(1)
    drawn = curves(found, truth, CLASSES)
    assert drawn[-1] is None
    for c, curve in enumerate(drawn[:-1]):
        assert curve is not None
        hits, positives = plain_voc(found, truth, c)
        last = int(100 * sum(hits) / positives + 1e-9)
        assert curve.recall == [n / 100 for n in range(last + 1)]
        expected = plain_precision(hits, positives, [r - 1e-9 for r in curve.recall])
        assert curve.precision == pytest.approx(expected)


def test_fidelity_equals_plain_loops() -> None:
    (student, _), (teacher, _) = scene(3, detections=300), scene(3)
    shared, sure = [], [i for i in range(len(teacher.scores)) if teacher.scores[i] >= 0.5]
    for i in sure:
        image = int(teacher.image[i])
        count = sum(int(teacher.image[k]) == image for k in sure)
        own = [j for j in range(len(student.scores)) if int(student.image[j]) == image]
        best = sorted(own, key=lambda j: -float(student.scores[j]))[:count]
        near = [
            overlap(teacher.boxes[i], student.boxes[j])
            for j in best
            if student.classes[j] == teacher.classes[i]
        ]
        shared += [max(near)] if max(near, default=0.0) >= 0.5 else []
    found = fidelity(student, teacher)
    assert 0 < len(shared) < len(sure)
    assert found == pytest.approx(
        {"agreement": len(shared) / len(sure), "overlap": sum(shared) / len(shared)}
    )
    assert fidelity(teacher, teacher) == {"agreement": 1.0, "overlap": 1.0}


def test_boxes_everywhere_at_any_score_agree_with_nobody() -> None:
    one = torch.tensor([0])
    teacher = Detections(one, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), one, torch.tensor([0.9]))
    everywhere = torch.tensor([[x, 0.0, x + 8.0, 8.0] for x in (40.0, 30.0, 20.0, 0.0)])
    zeros = torch.zeros(4, dtype=torch.int64)
    student = Detections(zeros, everywhere, zeros, torch.tensor([0.4, 0.3, 0.2, 0.1]))
    assert fidelity(student, teacher) == {"agreement": 0.0, "overlap": None}
    surest = Detections(zeros, everywhere, zeros, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert fidelity(surest, teacher) == {"agreement": 1.0, "overlap": 1.0}


def detections(*rows: tuple[int, list[float], float]) -> Detections:
    """Of class 0: image, box and score."""
    image, boxes, scores = zip(*rows, strict=True)
    classes = torch.zeros(len(rows), dtype=torch.long)
    return Detections(torch.tensor(image), torch.tensor(boxes), classes, torch.tensor(scores))


def objects(*rows: tuple[int, list[float]], difficult: tuple[int, ...] = ()) -> GroundTruth:
    """Of class 0: image and box."""
    image, boxes = (torch.tensor(x) for x in zip(*rows, strict=True))
    none = torch.zeros(len(rows), dtype=torch.bool)
    hard = torch.tensor([i in difficult for i in range(len(rows))])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return GroundTruth(image, boxes, none.long(), hard, none, areas)


SQUARE, ASIDE, INNER = [0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0], [4.0, 4.0, 12.0, 12.0]


@pytest.mark.parametrize("metric", [lambda *x: coco(*x).ap50, voc], ids=["coco", "voc"])
def test_difficult_objects_are_neither_truth_nor_mistake(
    metric: Callable[[Detections, GroundTruth, int], list[float | None]],
) -> None:
    truth = objects((3, SQUARE), (3, ASIDE), difficult=(0,))
    twice = detections((3, SQUARE, 0.9), (3, [1.0, 0.0, 41.0, 40.0], 0.8), (3, ASIDE, 0.7))
    assert metric(twice, truth, 1) == pytest.approx([100])
    inside = detections((3, INNER, 0.9), (3, ASIDE, 0.7))
    assert metric(inside, truth, 1) == pytest.approx([50])
    alone = objects((3, SQUARE), difficult=(0,))
    assert metric(twice, alone, 1) == [None]


def test_what_lies_in_a_crowd_is_no_mistake_in_coco() -> None:
    plain = objects((3, SQUARE), (3, ASIDE))
    mixed = replace(plain, crowd=torch.tensor([True, False]))
    crowded = replace(plain, crowd=torch.tensor([True, True]))
    found = detections((3, INNER, 0.9), (3, SQUARE, 0.8), (3, ASIDE, 0.7))
    assert coco(found, mixed, 1).ap50 == pytest.approx([100])
    assert coco(found, crowded, 1).ap50 == [None]


def test_boxes_at_the_edge_and_without_area() -> None:
    edge, line = [60.0, 60.0, 64.0, 64.0], [64.0, 0.0, 64.0, 9.0]
    truth = objects((0, edge))
    beyond = detections((0, line, 0.9), (0, [60.0, 60.0, 66.0, 64.0], 0.8), (0, edge, 0.7))
    assert voc(beyond, truth, 1) == pytest.approx([50])
    assert coco(beyond, truth, 1).ap50 == pytest.approx([50])
    assert voc(detections((0, line, 0.9)), objects((0, line)), 1) == [0]


def test_equal_scores_are_ordered_by_image_then_row() -> None:
    truth = objects((1, SQUARE), (2, SQUARE))
    rows = [(2, SQUARE, 0.5), (1, ASIDE, 0.5), (1, SQUARE, 0.5)]
    # The order is: wrong, right, right. The envelope is 2/3 throughout.
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
        found = detections(*(rows[i] for i in order))
        assert voc(found, truth, 1) == pytest.approx([100 * 2 / 3])
        assert coco(found, truth, 1).ap50 == pytest.approx([100 * 2 / 3])
    swapped = detections(rows[2], rows[1], rows[0])
    assert voc(swapped, truth, 1) == pytest.approx([50 + 50 * 2 / 3])
    assert coco(swapped, truth, 1).ap50 == pytest.approx([100 * (51 + 50 * 2 / 3) / 101])


def test_nothing_found_and_nothing_there() -> None:
    found, truth = scene(0)
    nothing, none = scene(0, detections=0)[0], objects((0, SQUARE), difficult=(0,))
    known = [0.0] * (CLASSES - 1)
    assert set(coco(nothing, truth, CLASSES).metrics.values()) == {0.0}
    assert coco(nothing, truth, CLASSES).ap50 == voc(nothing, truth, CLASSES) == [*known, None]
    assert curves(nothing, truth, CLASSES) == [
        *[PrecisionRecallCurve([0.0], [0.0])] * len(known),
        None,
    ]
    for seen in (found, nothing):
        assert set(coco(seen, none, 2).metrics.values()) == {None}
        assert voc(seen, none, 2) == curves(seen, none, 2) == [None, None]
    assert fidelity(found, nothing) == {"agreement": None, "overlap": None}
    assert fidelity(nothing, found) == {"agreement": 0.0, "overlap": None}


def test_nothing_is_said(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        coco(*scene(0), CLASSES)
    assert capfd.readouterr() == ("", "")
    assert not [x for x in caplog.records if x.levelno >= logging.INFO]


def outputs(found: Detections, truth: GroundTruth, images: list[int]) -> Outputs:
    """What the task keeps of a batch of images."""
    rows = [truth.image == i for i in images]
    parts = (truth.boxes, truth.classes, truth.difficult, truth.crowd, truth.areas)
    there = Objects(
        torch.full((len(images), 2), 400), *(tuple(x[row] for row in rows) for x in parts)
    )
    labels = torch.zeros(len(images), CLASSES, dtype=torch.long)
    batch = replace(Batch.of(torch.zeros(len(images), 3, 1, 1), labels), objects=there)
    seen = found[torch.isin(found.image, torch.tensor(images))]
    return Detection().collect(vars(seen), replace(batch, index=torch.tensor(images)))


def test_the_task_reports_what_can_be_said() -> None:
    task, (found, truth), (better, _) = Detection(), scene(5), scene(5, detections=400)
    images = torch.cat([found.image, truth.image]).unique().tolist()
    student, teacher = (
        task.concatenate([outputs(x, truth, images[:5]), outputs(x, truth, images[5:])])
        for x in (found, better)
    )
    result = evaluation(task, student, {"": teacher})
    library, areas = coco(found, truth, CLASSES), voc(found, truth, CLASSES)
    named = {name: library.metrics[name] for name in result.metrics if name != "voc_AP50"}
    assert len(named) == 7
    mean = sum(x for x in areas if x is not None) / (CLASSES - 1)
    assert result.metrics == pytest.approx({**named, "voc_AP50": mean})
    assert result.per_class == pytest.approx(library.ap50)
    assert result.fidelity == pytest.approx(fidelity(found, better))
    assert task.headline in result.metrics


def test_the_task_leaves_out_what_cannot_be_said() -> None:
    found, truth = scene(5)
    large = objects((1, [0.0, 0.0, 100.0, 100.0]))
    result = Detection().measure(outputs(found, large, [1, 2]))
    assert set(result.metrics) == {"AP", "AP50", "AP75", "APl", "AR100", "voc_AP50"}
    assert (result.per_class, result.fidelity) == ([0.0, None, None, None], None)
    empty = Detection().measure(outputs(found, truth, [1, 2]))
    assert (empty.metrics, empty.per_class) == ({}, [None] * CLASSES)
