"""The test images of a report: how many, of each class, and what they can tell of an accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy.experiment.evidence import points_of_one, standard_error
from understudy.functional import LEAST_FOR_CKA
from understudy.reporting.results import Results


@dataclass(frozen=True)
class MeasuredImages:
    """Images that the metrics of a report are of.

    Attributes:
        count: Number of images; None if it was not recorded, or differs between the runs.
        split: What they are: `test` images, or `validation` images where there are no others.
        per_class: Number of images, or for a detector of objects, of each class; None where it was
            not kept, and empty where that of no class was.
    """

    count: int | None
    split: str
    per_class: Sequence[int | None]

    def of_class(self, c: int) -> int | None:
        """Return the number of images of a class; None if it is not known."""
        return self.per_class[c] if c < len(self.per_class) else None


def measured_images(results: Results) -> MeasuredImages:
    """Return what the runs of a report recorded about the images they were measured on."""
    measured = {
        (split, (run.splits.get(split) or {}).get("images"))
        for arm in results.arms
        for run in arm.runs
        if run.finished
        for split in [str(run.evaluation.get("split") or "test")]
    }
    split, count = measured.pop() if len(measured) == 1 else ("test", None)
    return MeasuredImages(count, split, _per_class(results))


def _per_class(results: Results) -> list[int | None]:
    tables = [table for arm in results.arms for table in arm.diagnostics("confusion")]
    counts: list[list[int | None]] = [[sum(row) for row in table] for table in tables]
    for arm in results.arms:
        for entries in arm.diagnostics("precision"):
            known = {int(entry["class"]): int(entry["count"]) for entry in entries}
            counts.append([known.get(c) for c in range(len(results.classes))])
    same = bool(counts) and all(one == counts[0] for one in counts)
    return counts[0] if same else []


def without_cka(fidelity: Mapping[str, object] | None, images: int | None) -> str:
    """Say that CKA was left out, and why; empty if it was not, or not for want of images.

    Args:
        fidelity: What was measured of a student, None for what is not defined.
        images: How many images it was measured on.
    """
    if images is None or images >= LEAST_FOR_CKA or (fidelity or {}).get("cka", 0.0) is not None:
        return ""
    return (
        f"CKA is left out: of fewer than {LEAST_FOR_CKA} images, the features of any two networks "
        "look alike."
    )


def resolution(accuracy: float, images: int) -> str:
    """Return in words how finely some images measure an accuracy.

    >>> resolution(70.0, 60)
    'one image is 1.7 points, and the standard error at 70 % is 6 points'
    """
    unit = points_of_one(images)
    return (
        f"one image is {unit:.2g} point{'s' * (f'{unit:.2g}' != '1')}, and the standard error at "
        f"{accuracy:.0f} % is {standard_error(accuracy, images):.2g} points"
    )
