"""Warnings about numbers that say little, in the report and in what a command prints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.report_directories import write_json, write_run
from understudy.experiment.run_directory import Run
from understudy.reporting import report
from understudy.reporting.cautions import cautions
from understudy.reporting.collect import of_runs
from understudy.reporting.measured_images import resolution
from understudy.reporting.results import Arm, Results

SETTLED = [40.0, 60.0, 68.0, 70.0, 70.5, 70.6, 70.7, 70.6, 70.7, 70.8]
RISING = [20.0, 30.0, 40.0, 44.0, 50.0, 55.0, 60.0, 63.0, 66.0, 70.0]
NAMES = [str(c) for c in range(10)]


def run(root: Path, values: list[float], *, images: int = 10_000) -> Run:
    """A finished run with one value of top-1 after each epoch, measured on some images."""
    write_run(root, final=values[-1], epochs=1)
    lines = [
        json.dumps(
            {"epoch": i, "seconds": 1.0, "losses": {"total": 1.0}, "metrics": {"top1": value}}
        )
        for i, value in enumerate(values, 1)
    ]
    (root / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    splits = {"train": {"images": 500}, "validation": None, "test": {"images": images}}
    write_json(root / "environment.json", {"splits": splits})
    evaluation = json.loads((root / "evaluation.json").read_text(encoding="utf-8"))
    evaluation |= {"metrics": {"top1": values[-1]}, "split": "test", "images": images}
    write_json(root / "evaluation.json", evaluation)
    return Run(root)


def compared(root: Path, control: list[float], kd: list[float], *, images: int = 10_000) -> Results:
    """A control and a method, one run of each."""
    arms = [
        Arm(
            name,
            "control" if name == "control" else "method",
            "c0",
            metrics={"top1": [values[-1]]},
            methods={} if name == "control" else {"kd": {"weight": 3.0}},
            runs=[run(root / name / "seed0", values, images=images)],
        )
        for name, values in (("control", control), ("kd", kd))
    ]
    return Results("made up", "top1", NAMES, arms, {})


def test_a_cka_that_too_few_images_leave_out_is_explained(tmp_path: Path) -> None:
    results = compared(tmp_path, SETTLED, SETTLED, images=20)
    assert "CKA" not in cautions(results)[-1].remedy
    for file in tmp_path.glob("*/seed0/evaluation.json"):
        evaluation = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, evaluation | {"fidelity": {"cka": None}})
    arms = [replace(arm, runs=[Run(run.path) for run in arm.runs]) for arm in results.arms]
    advice = cautions(replace(results, arms=arms))[-1].remedy
    assert "CKA is left out: of fewer than 40 images" in advice


def test_settled_students_of_many_images_have_no_warning(tmp_path: Path) -> None:
    assert cautions(compared(tmp_path, SETTLED, [x + 1 for x in SETTLED])) == []


@pytest.mark.parametrize("kd", [[9.0, 11.0, 12.0], SETTLED])
def test_a_control_near_chance_makes_differences_worthless(tmp_path: Path, kd: list[float]) -> None:
    (caution,) = cautions(compared(tmp_path, [10.0, 10.4, 12.5], kd))
    assert "near chance (10.0 by guessing)" in caution.message
    assert "control 12.50" in caution.message
    assert ("kd 12.00" in caution.message) == (kd is not SETTLED)
    assert caution.flags == "--training.epochs 9"


def test_a_method_near_chance_beside_a_good_control_has_too_large_a_weight(tmp_path: Path) -> None:
    (caution,) = cautions(compared(tmp_path, SETTLED, [10.0, 10.4, 10.1]))
    assert "the control, trained as long, reaches 70.80" in caution.message
    assert caution.flags == "--methods.kd.weight 1.0"


def test_a_metric_that_still_rises_asks_for_more_epochs(tmp_path: Path) -> None:
    (caution,) = cautions(compared(tmp_path, RISING, SETTLED))
    assert "still rose in the last epoch of 10: control by 4.0." in caution.message
    assert caution.flags == "--training.epochs 20"


def test_a_rise_within_the_noise_of_the_images_is_none(tmp_path: Path) -> None:
    checks = [x.check for x in cautions(compared(tmp_path, RISING, SETTLED, images=200))]
    assert checks == ["few test images"]


def test_few_test_images_are_said_with_unit_and_error(tmp_path: Path) -> None:
    (caution,) = cautions(compared(tmp_path, SETTLED, SETTLED, images=60))
    assert "of 60 test images: one image is 1.7 points, and the standard error at 71 % is 5.9" in (
        caution.message
    )
    assert "understudy evaluate" in caution.advice


def test_a_detector_that_finds_nothing_is_near_chance(tmp_path: Path) -> None:
    arms = [Arm(name, "run", "c0", metrics={"AP50": [0.4]}) for name in ("first", "second")]
    (caution,) = cautions(Results("made up", "AP50", ["a"], arms, {}))
    assert "AP50 is near chance (0.0 by guessing) for first 0.40, second 0.40" in caution.message


def test_page_and_markdown_say_it(tmp_path: Path) -> None:
    one = run(tmp_path / "student", RISING, images=60)
    (caution,) = cautions(of_runs([one]))
    page = report(one)
    assert caution.message.split(":")[0] in page.read_text(encoding="utf-8")
    assert "Before you trust these numbers" in page.read_text(encoding="utf-8")
    assert caution.message.split(":")[0] in page.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("accuracy", "images", "words"),
    [
        (50.0, 100, "one image is 1 point, and the standard error at 50 % is 5 points"),
        (90.0, 10_000, "one image is 0.01 points, and the standard error at 90 % is 0.3 points"),
    ],
)
def test_resolution_of_an_accuracy(accuracy: float, images: int, words: str) -> None:
    assert resolution(accuracy, images) == words


def test_few_images_without_a_mistake_are_said_too(tmp_path: Path) -> None:
    (caution,) = cautions(compared(tmp_path, [100.0] * 10, [100.0] * 10, images=20))
    assert "the standard error at 100 % is 4.7 points" in caution.message


def test_few_validation_images_are_not_called_test_images(tmp_path: Path) -> None:
    folder = run(tmp_path, SETTLED, images=1).path
    splits = {"train": {"images": 500}, "validation": {"images": 1}, "test": None}
    write_json(folder / "environment.json", {"splits": splits})
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    write_json(folder / "evaluation.json", evaluation | {"split": "validation"})
    *_, caution = cautions(of_runs([Run(folder)]))
    assert caution.message.startswith("top-1 is of 1 validation image: ")
    assert caution.advice.startswith("Hold more images out by --data.validation")


def test_advice_of_a_page_has_its_commands_as_code(tmp_path: Path) -> None:
    html = report(run(tmp_path, SETTLED, images=60).path).read_text(encoding="utf-8")
    assert "<code>understudy evaluate RUN --data.root FOLDER</code>" in html
    assert "`understudy" not in html
