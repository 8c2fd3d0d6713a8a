"""Warnings of a teacher that is too bad to teach."""

import re

import pytest

from understudy.experiment.teacher_warning import teacher_warning


@pytest.mark.parametrize(
    ("teacher", "students", "classes", "words"),
    [
        (6.7, {"student": 5.0}, 10, r"own top1 is 6\.70, no better than chance \(10\.0 by "),
        (50.0, {"control": 61.0}, 10, r"own top1 is 50\.00, below the control \(61\.00\)"),
        (70.0, {"control": 61.0}, 10, "^$"),
        (None, {"control": 61.0}, 10, "^$"),
        (0.5, {}, 0, "^$"),
    ],
)
def test_a_bad_teacher_is_a_warning(teacher, students, classes, words):
    assert re.search(words, teacher_warning("top1", teacher, students, classes=classes))


def test_a_lead_within_the_noise_of_the_images_is_none() -> None:
    students = {"student": 94.85}
    assert teacher_warning("top1", 94.61, students, classes=10)
    assert not teacher_warning("top1", 94.61, students, classes=10, images=427)
    assert teacher_warning("top1", 94.61, students, classes=10, images=1_000_000)
