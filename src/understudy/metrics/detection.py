"""Metrics of detection: average precision of COCO and VOC, and fidelity to a teacher.

Pure functions of flat tables with one row per box; images are identified by any integers. Average
precisions are in percent; that of a class without ground truth is None.

Boxes are left, top, right and bottom in continuous pixels: their width is right − left, without
the pixel that VOC's own code adds. Crowds and difficult objects need not be detected, and any
number of detections matched to them is ignored; a crowd of COCO matches every box inside it. Under
LSHFM's stricter rule a detected difficult object counts as a false positive: for that, the data
source removes such objects, and nothing is needed here.

Detections are ordered by score; equal scores by image, then row.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.metrics import classification, resampling
from understudy.metrics.classification import Points

if TYPE_CHECKING:
    from faster_coco_eval import COCO

MATCH_IOU = 0.5
"""Least intersection over union of a match, in VOC and in fidelity."""

CONFIDENT_SCORE = 0.5
"""Least score of the teacher's detections that count in fidelity."""

_MAX_DETECTIONS = 100
"""Detections per class and image that COCO evaluates."""

_OUT_OF_RANGE = -1.0
"""Area outside all of COCO's ranges: the object is ignored at every size."""


@dataclass(frozen=True)
class Detections:
    """Boxes that a detector predicts.

    Attributes:
        image: Number of the image.
        boxes: Left, top, right and bottom in pixels.
        classes: From 0, without background.
        scores: Higher means more confident.
    """

    image: Int[Tensor, " boxes"]
    boxes: Float[Tensor, "boxes 4"]
    classes: Int[Tensor, " boxes"]
    scores: Float[Tensor, " boxes"]

    def __getitem__(self, rows: Tensor) -> "Detections":
        return Detections(*(column[rows] for column in vars(self).values()))

    def ranked(self) -> "Detections":
        """Sort from the highest score to the lowest."""
        # Two stable sorts: equal scores stay in the order of image, then row.
        order = self.image.argsort(stable=True)
        return self[order[self.scores[order].argsort(descending=True, stable=True)]]


@dataclass(frozen=True)
class GroundTruth:
    """Annotated objects.

    Attributes:
        image: Number of the image.
        boxes: Left, top, right and bottom in pixels.
        classes: From 0.
        difficult: VOC's flag of objects that need not be detected.
        crowd: COCO's flag of regions of many objects.
        areas: Area of each object in pixels; of its box if its mask is not known.
    """

    image: Int[Tensor, " objects"]
    boxes: Float[Tensor, "objects 4"]
    classes: Int[Tensor, " objects"]
    difficult: Bool[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]
    areas: Float[Tensor, " objects"]

    def __getitem__(self, rows: Tensor) -> "GroundTruth":
        return GroundTruth(*(column[rows] for column in vars(self).values()))

    @property
    def required(self) -> Bool[Tensor, " objects"]:
        """Which objects must be detected: neither difficult nor a crowd."""
        return ~(self.difficult | self.crowd)


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's metrics of detections, in percent.

    Attributes:
        metrics: `AP`, the mean over IoU thresholds 0.5, 0.55, …, 0.95; `AP50` and `AP75` at one
            threshold; `APs`, `APm`, `APl` of objects with an area below 32², below 96² and above;
            `AR1`, `AR10`, `AR100`, the recall with so many detections per class and image.
        ap: `AP` of each class.
        ap50: `AP50` of each class.
    """

    metrics: dict[str, float | None]
    ap: list[float | None]
    ap50: list[float | None]


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision at recalls 0, 0.01, …, up to the highest recall reached, in [0, 1]."""

    recall: list[float]
    precision: list[float]


def coco(detections: Detections, truth: GroundTruth, classes: int) -> CocoMetrics:
    """Compute COCO's metrics with faster-coco-eval.

    Lin et al., "Microsoft COCO: Common Objects in Context", 2014.
    """
    precision, recall = _accumulated(detections, truth, classes)
    all_sizes, most_detections = 0, -1
    ap, ar = precision[..., all_sizes, most_detections], recall[..., all_sizes, :]
    values = {"AP": ap, "AP50": ap[0], "AP75": ap[5]}
    values |= {
        f"AP{size}": precision[..., i, most_detections] for i, size in enumerate("sml", start=1)
    }
    values |= {f"AR{count}": ar[..., i] for i, count in enumerate((1, 10, _MAX_DETECTIONS))}
    return CocoMetrics(
        {name: _mean(value) for name, value in values.items()},
        [_mean(ap[..., c]) for c in range(classes)],
        [_mean(ap[0, ..., c]) for c in range(classes)],
    )


def voc(
    detections: Detections, truth: GroundTruth, classes: int, *, points: Points = "all"
) -> list[float | None]:
    """Compute VOC's average precision of each class, at an intersection over union (IoU) of 0.5.

    From the highest score down, a detection is matched to the object of its class with the largest
    IoU. It is a false positive if that is below 0.5, or if the object is already matched.
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", 2010.
    """
    return [
        100 * float(classification.average_precision(*ranking, points)) if ranking else None
        for ranking in _rankings(detections, truth, classes)
    ]


def curves(
    detections: Detections, truth: GroundTruth, classes: int
) -> list[PrecisionRecallCurve | None]:
    """Compute the monotone envelope of precision over recall of each class, matched as in `voc`."""
    return [ranking and _curve(*ranking) for ranking in _rankings(detections, truth, classes)]


def fidelity(student: Detections, teacher: Detections) -> dict[str, float | None]:
    """Compute how many of the teacher's confident detections are among the student's best.

    The teacher is confident of detections with a score of at least 0.5. Of each image, as many of
    the student's count, those with the highest scores: a detector that gives hundreds of boxes of
    low score would otherwise agree with any teacher. `agreement` is the share, in [0, 1], of the
    teacher's for which one of them has the same class and an intersection over union of at least
    0.5; `overlap` is the mean intersection over union of those.
    """
    confident = teacher[teacher.scores >= CONFIDENT_SCORE]
    overlaps, _ = _nearest(confident, _best_of_each_image(student, confident.image))
    matched = overlaps >= MATCH_IOU
    return {
        "agreement": float(matched.double().mean()) if len(matched) else None,
        "overlap": float(overlaps[matched].mean()) if matched.any() else None,
    }


def _best_of_each_image(detections: Detections, images: Int[Tensor, " boxes"]) -> Detections:
    """Select the detections of highest score, in each image as many as it occurs in `images`."""
    ranked = detections.ranked()
    order = ranked.image.argsort(stable=True)
    image = ranked.image[order]
    # Rank within the image: distance from the first detection of the same image.
    rank = torch.arange(len(image)) - torch.searchsorted(image, image)
    sorted_images = images.sort().values
    first, end = (torch.searchsorted(sorted_images, image, right=x) for x in (False, True))
    return ranked[order[rank < end - first]]


def _accumulated(
    detections: Detections, truth: GroundTruth, classes: int
) -> tuple[Float[Tensor, "overlaps recalls classes sizes counts"], Tensor]:
    """Run faster-coco-eval; return precision, and recall (overlaps, classes, sizes, counts).

    Values are -1 where there is no ground truth.
    """
    # Imported where boxes are measured: no other task needs it.
    from faster_coco_eval import COCOeval_faster

    detections = detections.ranked()
    # The library overwrites the flag `ignore`, but ignores objects with an area out of range. Such
    # an object absorbs one detection; as many copies as detections of its class absorb them all.
    _, candidates = _pairs(detections, truth)
    copies = torch.where(truth.difficult, candidates.bincount(minlength=len(truth.image)), 1)
    truth = truth[torch.arange(len(copies)).repeat_interleave(copies.clamp(1, _MAX_DETECTIONS))]
    areas = torch.where(truth.difficult, _OUT_OF_RANGE, truth.areas)
    sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
    images = sorted({*detections.image.tolist(), *truth.image.tolist()})
    targets = _table(truth, images, classes, area=areas, iscrowd=truth.crowd.int())
    results = _table(detections, images, classes, area=sides.prod(1), score=detections.scores)
    evaluation = COCOeval_faster(targets, results, iouType="bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (torch.from_numpy(evaluation.eval[x]) for x in ("precision", "recall"))
    return precision, recall


def _table(
    boxes: Detections | GroundTruth, images: list[int], classes: int, **more: Tensor
) -> "COCO":
    """Convert boxes, with further columns, to the library's class."""
    from faster_coco_eval import COCO

    corner, sides = boxes.boxes[:, :2].double(), boxes.boxes[:, 2:].double()
    columns = {
        "image_id": boxes.image,
        "category_id": boxes.classes,
        "bbox": torch.cat([corner, sides - corner], dim=1),
    } | more
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    table = COCO()
    table.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": c} for c in range(classes)],
        "annotations": [
            {"id": number} | dict(zip(columns, row, strict=True))
            for number, row in enumerate(values, start=1)
        ],
    }
    table.createIndex()
    return table


def _mean(values: Float[Tensor, "..."]) -> float | None:
    """Average the values that are defined (not -1), in percent; None if there are none."""
    known = values[values > -1]
    return 100 * float(known.mean()) if len(known) else None


Ranking = tuple[Int[Tensor, " ranks"], Float[Tensor, " ranks"], int]
"""True positives down to each rank, precision at each rank, and number of positives."""


def _rankings(detections: Detections, truth: GroundTruth, classes: int) -> list[Ranking | None]:
    """Match detections as in VOC and rank them in each class; None without ground truth."""
    detections, hit, counted = _matches(detections, truth)
    result: list[Ranking | None] = []
    for c in range(classes):
        positives = int((truth.required & (truth.classes == c)).sum())
        hits = hit[counted & (detections.classes == c)].cumsum(0)
        ranks = torch.arange(1, len(hits) + 1)
        result.append((hits, hits.double() / ranks, positives) if positives else None)
    return result


def _matches(
    detections: Detections, truth: GroundTruth
) -> tuple[Detections, Bool[Tensor, " ranks"], Bool[Tensor, " ranks"]]:
    """Match detections to objects as in VOC.

    Returns:
        The detections, highest score first; which are true positives; and which count at all.
    """
    detections, objects = detections.ranked(), len(truth.image)
    overlaps, nearest = _nearest(detections, truth)
    matched = overlaps >= MATCH_IOU
    # Index `objects` stands for no object.
    required = torch.cat([truth.required, torch.ones(1, dtype=torch.bool)])[nearest]
    hit = matched & required & _first(nearest.where(matched, objects), objects)
    # A detection of an object that need not be detected counts neither for nor against.
    return detections, hit, ~matched | required


def resampled_ap(
    detections: Detections, truth: GroundTruth, classes: int, images: Int[Tensor, " images"]
) -> list[float]:
    """Compute `voc`'s mean average precision, in percent, on each resample of the test images.

    Args:
        detections: Of all images.
        truth: Of all images.
        classes: Number of classes.
        images: Numbers of all test images, also of those without detections and objects.
    """
    numbers, counts = images.sort().values, resampling.image_counts(len(images))
    detections, hit, counted = _matches(detections, truth)
    place, true_place = (torch.searchsorted(numbers, x.image) for x in (detections, truth))
    by_class = []
    for c in range(classes):
        required = true_place[truth.required & (truth.classes == c)]
        if len(required):
            rows = counted & (detections.classes == c)
            positives = required.bincount(minlength=len(numbers))
            by_class.append(resampling.average_precision(hit[rows], place[rows], positives, counts))
    return resampling.mean_over_classes(by_class) if by_class else []


def _curve(hits: Tensor, precision: Tensor, positives: int) -> PrecisionRecallCurve:
    steps = 100
    envelope = classification.at_recalls(hits, precision, positives, steps=steps).tolist()
    reached = range(steps * int(hits.max()) // positives + 1 if len(hits) else 1)
    return PrecisionRecallCurve([i / steps for i in reached], [envelope[i] for i in reached])


def _first(values: Int[Tensor, " rows"], count: int) -> Bool[Tensor, " rows"]:
    """Return which rows are the first with their value; values are from 0 to `count`."""
    rows = torch.arange(len(values))
    earliest = torch.full((count + 1,), len(rows)).scatter_reduce_(0, values, rows, "amin")
    return earliest[values] == rows


def _nearest(
    boxes: Detections, others: Detections | GroundTruth
) -> tuple[Float[Tensor, " boxes"], Int[Tensor, " boxes"]]:
    """Match each box to the row of `others`, of the same image and class, that it overlaps most.

    Returns intersection over union and row, the first of equal ones; 0 and the number of rows if no
    box overlaps.
    """
    row, other = _pairs(boxes, others)
    overlaps = _overlaps(boxes.boxes[row].double(), others.boxes[other].double())
    best = torch.zeros(len(boxes.image), dtype=torch.double)
    best.scatter_reduce_(0, row, overlaps, "amax")
    equal = overlaps == best[row]
    nearest = torch.full((len(boxes.image),), len(others.image))
    return best, nearest.scatter_reduce_(0, row[equal], other[equal], "amin")


def _pairs(
    boxes: Detections, others: Detections | GroundTruth
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return the rows of all pairs of boxes of the same image and class."""
    # One integer key for (image, class). Image numbers may be large: their rank keeps keys small.
    images = torch.cat([boxes.image, others.image]).sort().values
    width = 1 + max(int(x.classes.max()) if len(x.classes) else 0 for x in (boxes, others))
    box_keys, other_keys = (
        torch.searchsorted(images, x.image) * width + x.classes for x in (boxes, others)
    )
    sorted_keys, order = other_keys.sort(stable=True)
    start, end = (torch.searchsorted(sorted_keys, box_keys, right=x) for x in (False, True))
    counts = end - start
    row = torch.arange(len(box_keys)).repeat_interleave(counts)
    # Position of each pair among the pairs of its row.
    within = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    return row, order[start[row] + within]


def _overlaps(a: Float[Tensor, "pairs 4"], b: Float[Tensor, "pairs 4"]) -> Float[Tensor, " pairs"]:
    """Compute intersection over union of pairs of boxes; 0 if both have no area."""
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    intersection = sides.clamp_min(0).prod(1)
    union = sum((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)) - intersection
    return torch.where(intersection > 0, intersection / union, 0)
