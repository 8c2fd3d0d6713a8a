"""What the teacher can give: a linear probe of its feature, and how like the student's it is.

The probe is a ridge regression from the penultimate feature to the labels, each image judged by a
fit to all others. It needs no classifier, so that it also measures teachers of other classes. CKA
(Kornblith et al. 2019) tells how alike the geometry of both features is before training.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from understudy.batch import labelled
from understudy.checks._probe import probe
from understudy.checks._scores import affordable_images, measured_split, scores
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.functional import LEAST_FOR_CKA, linear_cka
from understudy.models.network import Network
from understudy.tasks import Outputs

SHORT, OF_METHODS, SECONDS = False, False, 12.0

CHECK = "teacher_features"

_LEAST_GAIN = 0.05
"""Least gain in the probe's score that a teacher may give, from 0 to 1."""

_GOOD = 0.95
"""Score of the teacher's probe from which on nothing is amiss, however good the student's is."""


def check(examined: Examined) -> Iterator[Finding]:
    """Probe the features of teacher and student, and compare them."""
    distiller = examined.experiment.distiller
    teacher, student = examined.experiment.teacher, distiller.student
    if not isinstance(teacher, Network) or not isinstance(student, Network):
        return
    split = measured_split(examined)
    count = affordable_images(examined, split)
    theirs, ours = examined.teacher_outputs(split, count), examined.student_outputs(split, count)
    cka = linear_cka(ours["penultimate"], theirs["penultimate"])
    if cka is None:
        yield Finding(
            CHECK,
            "note",
            f"The teacher's feature was neither probed nor compared with the student's by CKA: "
            f"{len(theirs['index'])} {split} images are fewer than the {LEAST_FOR_CKA} below which "
            "any two features look alike.",
        )
        return
    alike = (
        f"linear CKA of both, from 0 for nothing alike to 1 for the same up to rotation: {cka:.2f}"
    )
    classes = len(examined.images.train.classes)
    if not examined.task.uses_labels or not classes or not labelled(theirs["labels"]).any():
        yield Finding(
            CHECK,
            "note",
            "Without labels, the teacher's feature is compared with the untrained student's: "
            f"{alike}.",
        )
        return
    of_teacher, of_student = (_probed(each, classes) for each in (theirs, ours))
    said = (
        f"A linear probe on the teacher's penultimate feature scores "
        f"{100 * float(of_teacher.mean()):.1f} on {len(of_teacher)} {split} images, on the "
        f"student's before training {100 * float(of_student.mean()):.1f}; {alike}."
    )
    if not _no_better(of_teacher, of_student):
        yield Finding(CHECK, "note", said)
    elif float(of_teacher.mean()) >= _GOOD:
        yield Finding(CHECK, "note", f"{said} These classes are easily told apart.")
    elif examined.recipe.student.weights:
        yield Finding(CHECK, "note", f"{said} The student knows as much already.")
    else:
        yield Finding(
            CHECK,
            "warning",
            f"{said} The teacher's feature tells no more of these classes than that of an "
            "untrained network.",
            advice="Check teacher.weights, and the size and normalisation of its images.",
        )


def _no_better(of_teacher: Tensor, of_student: Tensor) -> bool:
    """Return True if the teacher's probe is not even by five points better, two errors included."""
    difference = of_teacher - of_student
    return float(difference.mean() + 2 * difference.std() / len(difference) ** 0.5) < _LEAST_GAIN


def _probed(outputs: Outputs, classes: int) -> Tensor:
    rows = labelled(outputs["labels"])
    features, labels = outputs["penultimate"][rows].float(), outputs["labels"][rows]
    with torch.no_grad():
        return scores(probe(features, labels, classes), labels)
