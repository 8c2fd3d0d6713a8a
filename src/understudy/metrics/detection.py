"""How good detections are: average precision of COCO and of VOC, and fidelity to a teacher.

Pure functions of flat tables, a row for every box; images go by any number. Average precisions are
in percent. What cannot be said is None: the average precision of a class without truth.

Boxes are left, top, right and bottom in continuous pixels: their width is right − left, without
the pixel that VOC's own code adds. Crowds, and objects that VOC calls difficult, are neither to be
found nor a mistake if found, any number of times; a crowd of COCO's covers what lies inside it.
LSHFM's stricter rule, where a difficult object that is found counts as a mistake, needs nothing
here: there the source of the data has removed such objects.

The order of detections is by score; equal ones are ordered by image, then row.
"""

from dataclasses import dataclass

import torch
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.metrics import classification
from understudy.metrics.classification import Points

HIT = 0.5
"""Intersection over union from which a box is found, in VOC and in fidelity."""

CONFIDENT = 0.5
"""Score from which a teacher's detection is one that its student should have."""

_MOST = 100
"""Detections that COCO looks at, for each class and image."""

_NOWHERE = -1.0
"""An area inside none of COCO's ranges, which makes an object one that nobody seeks."""


@dataclass(frozen=True)
class Detections:
    """What a detector found.

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
        """The same from the highest score to the lowest."""
        order = self.image.argsort(stable=True)
        return self[order[self.scores[order].argsort(descending=True, stable=True)]]


@dataclass(frozen=True)
class Truth:
    """The objects there are.

    Attributes:
        image: Number of the image.
        boxes: Left, top, right and bottom in pixels.
        classes: From 0.
        difficult: Objects that VOC calls so.
        crowd: Boxes that COCO calls so: regions of many objects.
        areas: Pixels of each object; of its box where nothing better is known.
    """

    image: Int[Tensor, " objects"]
    boxes: Float[Tensor, "objects 4"]
    classes: Int[Tensor, " objects"]
    difficult: Bool[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]
    areas: Float[Tensor, " objects"]

    def __getitem__(self, rows: Tensor) -> "Truth":
        return Truth(*(column[rows] for column in vars(self).values()))

    @property
    def sought(self) -> Bool[Tensor, " objects"]:
        """Which objects are to be found."""
        return ~(self.difficult | self.crowd)


@dataclass(frozen=True)
class Coco:
    """What COCO reports of detections, in percent.

    Attributes:
        metrics: `AP` over intersections of 0.5, 0.55, …, 0.95, `AP50` and `AP75` at one; `APs`,
            `APm`, `APl` of objects of less than 32², less than 96² and more pixels; `AR1`, `AR10`,
            `AR100`, the recall with so many detections of a class in an image.
        ap: `AP` of each class.
        ap50: `AP50` of each class.
    """

    metrics: dict[str, float | None]
    ap: list[float | None]
    ap50: list[float | None]


@dataclass(frozen=True)
class Curve:
    """Precision at recalls of 0, 0.01, … as far as they are reached, in [0, 1]."""

    recall: list[float]
    precision: list[float]


def coco(found: Detections, truth: Truth, classes: int) -> Coco:
    """Metrics of COCO, computed by faster-coco-eval.

    Lin et al., "Microsoft COCO: Common Objects in Context", 2014.
    """
    precision, recall = _accumulated(found, truth, classes)
    everything, most = 0, -1
    ap, ar = precision[..., everything, most], recall[..., everything, :]
    values = {"AP": ap, "AP50": ap[0], "AP75": ap[5]}
    values |= {f"AP{size}": precision[..., i, most] for i, size in enumerate("sml", start=1)}
    values |= {f"AR{count}": ar[..., i] for i, count in enumerate((1, 10, _MOST))}
    return Coco(
        {name: _mean(value) for name, value in values.items()},
        [_mean(ap[..., c]) for c in range(classes)],
        [_mean(ap[0, ..., c]) for c in range(classes)],
    )


def voc(
    found: Detections, truth: Truth, classes: int, *, points: Points = "all"
) -> list[float | None]:
    """Average precision of each class at an intersection over union of 0.5.

    From the highest score down, a detection takes the object of its class that it overlaps most; it
    is a mistake if that is below 0.5, or if another one has taken the object before.
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", 2010.
    """
    return [
        100 * float(classification.average_precision(*ranking, points)) if ranking else None
        for ranking in _rankings(found, truth, classes)
    ]


def curves(found: Detections, truth: Truth, classes: int) -> list[Curve | None]:
    """The monotone envelope of precision over recall for each class, matched as in `voc`."""
    return [ranking and _curve(*ranking) for ranking in _rankings(found, truth, classes)]


def fidelity(student: Detections, teacher: Detections) -> dict[str, float | None]:
    """How much of what the teacher is confident of the student finds too, at any score.

    `agreement` is the share, in [0, 1], of the teacher's detections with a score of at least 0.5
    for which the student has one of the same class with an intersection over union of at least 0.5;
    `overlap` is the mean intersection over union of those.
    """
    sure = teacher[teacher.scores >= CONFIDENT]
    overlaps, _ = _nearest(sure, student)
    shared = overlaps >= HIT
    return {
        "agreement": float(shared.double().mean()) if len(shared) else None,
        "overlap": float(overlaps[shared].mean()) if shared.any() else None,
    }


def _accumulated(
    found: Detections, truth: Truth, classes: int
) -> tuple[Float[Tensor, "overlaps recalls classes sizes counts"], Tensor]:
    """Precision and recall (overlaps, classes, sizes, counts) of the library; -1 without truth.

    The library overwrites the flag `ignore`, but seeks no object whose area is outside the range
    asked for. Such an object excuses one detection; as many copies as there are detections excuse
    them all.
    """
    found = found.ranked()
    _, met = _pairs(found, truth)
    copies = torch.where(truth.difficult, met.bincount(minlength=len(truth.image)), 1)
    truth = truth[torch.arange(len(copies)).repeat_interleave(copies.clamp(1, _MOST))]
    areas = torch.where(truth.difficult, _NOWHERE, truth.areas)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    images = sorted({*found.image.tolist(), *truth.image.tolist()})
    real = _table(truth, images, classes, area=areas, iscrowd=truth.crowd.int())
    seen = _table(found, images, classes, area=sides.prod(1), score=found.scores)
    evaluation = COCOeval_faster(real, seen, iouType="bbox", print_function=lambda *said: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (torch.from_numpy(evaluation.eval[x]) for x in ("precision", "recall"))
    return precision, recall


def _table(boxes: Detections | Truth, images: list[int], classes: int, **more: Tensor) -> COCO:
    """A table as the library wants it."""
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
    """In percent, of what the library has a value for."""
    known = values[values > -1]
    return 100 * float(known.mean()) if len(known) else None


Ranking = tuple[Int[Tensor, " ranks"], Float[Tensor, " ranks"], int]
"""Objects found down to each rank, precision at each rank, and how many there are to find."""


def _rankings(found: Detections, truth: Truth, classes: int) -> list[Ranking | None]:
    """For each class; None without truth."""
    found, objects = found.ranked(), len(truth.image)
    overlaps, nearest = _nearest(found, truth)
    met = overlaps >= HIT
    sought = torch.cat([truth.sought, torch.ones(1, dtype=torch.bool)])[nearest]
    hit = met & sought & _first(nearest.where(met, objects), objects)
    counted = ~met | sought
    result: list[Ranking | None] = []
    for c in range(classes):
        positives = int((truth.sought & (truth.classes == c)).sum())
        hits = hit[counted & (found.classes == c)].cumsum(0)
        ranks = torch.arange(1, len(hits) + 1)
        result.append((hits, hits.double() / ranks, positives) if positives else None)
    return result


def _curve(hits: Tensor, precision: Tensor, positives: int) -> Curve:
    steps = 100
    best = classification.at_recalls(hits, precision, positives, steps=steps).tolist()
    reached = range(steps * int(hits.max()) // positives + 1 if len(hits) else 1)
    return Curve([i / steps for i in reached], [best[i] for i in reached])


def _first(values: Int[Tensor, " rows"], count: int) -> Bool[Tensor, " rows"]:
    """Whether no row before has the same value, which is from 0 to `count`."""
    rows = torch.arange(len(values))
    earliest = torch.full((count + 1,), len(rows)).scatter_reduce_(0, values, rows, "amin")
    return earliest[values] == rows


def _nearest(
    boxes: Detections, others: Detections | Truth
) -> tuple[Float[Tensor, " boxes"], Int[Tensor, " boxes"]]:
    """The row of the other table, of the same image and class, that each box overlaps most.

    Intersection over union and row: the first of equal ones; 0 and the number of rows if there is
    none.
    """
    row, other = _pairs(boxes, others)
    overlaps = _overlaps(boxes.boxes[row].double(), others.boxes[other].double())
    best = torch.zeros(len(boxes.image), dtype=torch.double)
    best.scatter_reduce_(0, row, overlaps, "amax")
    equal = overlaps == best[row]
    nearest = torch.full((len(boxes.image),), len(others.image))
    return best, nearest.scatter_reduce_(0, row[equal], other[equal], "amin")


def _pairs(
    boxes: Detections, others: Detections | Truth
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Rows of all boxes that share image and class."""
    # Images go by any number: their rank among all keeps the keys small.
    images = torch.cat([boxes.image, others.image]).sort().values
    width = 1 + max(int(x.classes.max()) if len(x.classes) else 0 for x in (boxes, others))
    ours, theirs = (
        torch.searchsorted(images, x.image) * width + x.classes for x in (boxes, others)
    )
    keys, order = theirs.sort(stable=True)
    start, end = (torch.searchsorted(keys, ours, right=right) for right in (False, True))
    counts = end - start
    row = torch.arange(len(ours)).repeat_interleave(counts)
    within = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    return row, order[start[row] + within]


def _overlaps(a: Float[Tensor, "pairs 4"], b: Float[Tensor, "pairs 4"]) -> Float[Tensor, " pairs"]:
    """Intersection over union; 0 of two boxes without area."""
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    shared = sides.clamp_min(0).prod(1)
    either = sum((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)) - shared
    return torch.where(shared > 0, shared / either, 0)
