"""Several students of one teacher: each has a comparison of its own, and all share a bank."""

import json
from pathlib import Path

import pytest

import understudy
from understudy.comparison.students import StudentComparison
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError, RunError
from understudy.experiment.run_directory import Run

STUDENTS = ("timm:test_efficientnet", "timm:test_resnet")


@pytest.fixture(scope="module")
def recipe(saved_comparison: Path) -> Recipe:
    recipe = Run(saved_comparison / "control" / "seed0").recipe
    return Recipe.load(recipe, {"bank.path": ""})


@pytest.fixture(scope="module")
def students(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> StudentComparison:
    root = tmp_path_factory.mktemp("students") / "out"
    return understudy.compare_students(
        recipe, STUDENTS, {"name": "pair"}, methods=["kd"], seeds=[0], out=root, device="cpu"
    )


def test_each_student_is_compared_as_by_itself(
    students: StudentComparison, saved_comparison: Path
) -> None:
    alone = (saved_comparison / "kd" / "seed0" / "student.safetensors").read_bytes()
    (run,) = students.comparison(STUDENTS[0]).runs("kd")
    assert (run.path / "student.safetensors").read_bytes() == alone
    assert [arm["name"] for arm in students.comparison(STUDENTS[1]).arms] == ["control", "kd"]


def test_all_students_read_one_bank(students: StudentComparison) -> None:
    root = Path(students)
    assert [folder.name for folder in (root / "bank").iterdir()] == ["32"]
    assert not list(root.glob("timm*/bank"))


def test_the_comparison_is_read_from_its_directory(students: StudentComparison) -> None:
    assert StudentComparison.load(students) == students
    assert all(name in students.table() for name in STUDENTS)


def test_the_report_shows_accuracy_over_latency(students: StudentComparison) -> None:
    page = understudy.report(students).read_text(encoding="utf-8")
    assert "top-1 over latency" in page
    assert 'href="timm-test_resnet/report.html"' in page
    speeds = json.loads((Path(students) / "speed.json").read_text())
    names = [row["names"] for row in speeds["rows"]]
    # The teacher reads larger images than the student of the same network.
    assert names == [["teacher"], *([f"{x} control", f"{x} kd"] for x in STUDENTS)]


def test_a_report_of_a_student_measures_its_networks_once(students: StudentComparison) -> None:
    folder = Path(students) / "timm-test_resnet"
    understudy.report(folder)
    first = (folder / "speed.json").stat().st_mtime_ns
    understudy.report(folder)
    assert (folder / "speed.json").stat().st_mtime_ns == first
    assert "Size and latency" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("names", "message"),
    [(["resnet8"], "two students or more"), (["resnet8", "resnet8"], "name each once")],
)
def test_fewer_than_two_students_are_refused(
    recipe: Recipe, names: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        understudy.compare_students(recipe, names, out=tmp_path)


def test_directories_of_something_else_are_refused(
    recipe: Recipe, students: StudentComparison, saved_comparison: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="holds a single comparison"):
        understudy.compare_students(recipe, STUDENTS, out=saved_comparison)
    with pytest.raises(RunError, match="timm:test_resnet too"):
        understudy.compare_students(recipe, ["resnet8", STUDENTS[0]], out=students)
    with pytest.raises(RunError, match=f"it has no {StudentComparison.FILE}"):
        StudentComparison.load(tmp_path)
