"""What test images and steps can show: the sentences of the doctor and of reports."""

import pytest

from understudy.experiment.evidence import (
    FEWEST_STEPS,
    few_images,
    few_labels,
    few_steps,
    points_of_one,
    standard_error,
)


@pytest.mark.parametrize(
    ("accuracy", "images", "error"), [(90.0, 900, 1.0), (50.0, 2500, 1.0), (50.0, 100, 5.0)]
)
def test_the_error_is_that_of_a_share(accuracy: float, images: int, error: float) -> None:
    assert standard_error(accuracy, images) == pytest.approx(error, rel=0.01)


def test_an_accuracy_without_a_mistake_is_not_certain() -> None:
    assert few_images(100.0, 20)
    assert few_images(100.0, 200) == ""


def test_few_images_are_said_with_the_number_that_is_enough() -> None:
    sentence = few_images(85.0, 300)
    assert "The 300 test images are few" in sentence
    assert "of 85 % is 2.1 points (one is 0.33)" in sentence
    assert "about 1,300 images have a standard error of that size" in sentence
    assert few_images(85.0, 1300) == ""
    assert few_images(50.0, 1200) == ""
    assert few_images(50.0, 1100)
    assert points_of_one(200) == 0.5


def test_objects_count_where_images_hold_several() -> None:
    sentence = few_labels(90, "objects", 40, split="validation")
    assert "The 90 objects in 40 validation images are few" in sentence
    assert few_labels(2500, "objects", 40) == ""


def test_a_handful_of_steps() -> None:
    assert "has 1 optimizer step in all" in few_steps(1)
    assert few_steps(FEWEST_STEPS) == ""
