"""Rows of tables: which run trains the teacher of each, in which order they go, and refusals."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.small_table import pictures, table
from understudy.comparison.jobs.schedule import Failure
from understudy.config import tables
from understudy.config.recipe import Recipe
from understudy.errors import DataError, NameNotFound, RecipeError, UnderstudyError
from understudy.experiment.images import ImagesOfRecipes
from understudy.reproduction.agenda import RowsAgenda
from understudy.reproduction.budget import Budget, seconds_of
from understudy.reproduction.order import Order
from understudy.reproduction.reproduce import reproduce
from understudy.reproduction.rows import Row, Settings, rows
from understudy.reproduction.run_costs import Costs

TABLES = sorted({name.rpartition("/")[0] for name in tables.shipped()} & set(tables.tables()))


@pytest.mark.parametrize("name", TABLES)
def test_every_teacher_of_a_shipped_table_is_trained_or_refused(name: str, tmp_path: Path) -> None:
    for row in tables.rows(name):
        about = tables.about(f"{name}/{row}")
        recipe = Recipe.load(f"{name}/{row}")
        taught = bool(recipe.methods or about.first)
        if taught and not (recipe.teacher.weights or about.teachers):
            with pytest.raises(RecipeError, match="--teachers"):
                rows(name, [row], Settings(tmp_path))[0].stage(0)
            continue
        (planned,) = rows(name, [row], Settings(tmp_path))
        stage = planned.stage(0)
        assert stage.recipe.seed == 0
        if planned.recipe.methods:
            assert stage.recipe.teacher.weights
        for needed in stage.after:
            assert needed.recipe.student.name == planned.recipe.teacher.name or about.first


@pytest.mark.parametrize(
    ("name", "row", "teacher", "published"),
    [
        ("cifar100/kd", "resnet56_resnet20", "resnet56", "72.34"),
        ("cifar100/with_kd", "kd_vgg8", "resnet32x4", "79.42"),
        ("voc0712/l2", "retinanet_vgg16_vgg11", "retinanet_vgg16", "76.6"),
        ("coco14/l2", "resnet101gmp_resnet101", "resnet101gmp", "79.57"),
    ],
)
def test_the_teacher_of_a_row(
    name: str, row: str, teacher: str, published: str, tmp_path: Path
) -> None:
    (planned,) = rows(name, [row], Settings(tmp_path))
    assert planned.teacher
    assert planned.teacher.name == f"teacher {teacher}"
    assert planned.teacher.path == tmp_path / "teachers" / planned.teacher.recipe.digest
    assert planned.stage(3).recipe.teacher.weights == str(planned.teacher.path)
    assert planned.about.teacher == published


def test_a_second_stage_waits_for_the_first_and_that_for_its_teacher(tmp_path: Path) -> None:
    (row,) = rows("cifar100/ab", ["vgg13_vgg8"], Settings(tmp_path, share=0.1))
    stage = row.stage(2)
    (first,) = stage.after
    (teacher,) = first.after
    assert [s.name for s in stage.unfinished()] == [teacher.name, first.name, stage.name]
    assert stage.recipe.student.weights == str(first.path / "last")
    assert (first.recipe.training.epochs, first.recipe.seed) == (3, 2)
    assert first.recipe.teacher.weights == str(teacher.path)


def test_weights_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "resnet56.pth").write_bytes(b"")
    settings = Settings(tmp_path, teachers=tmp_path)
    (row,) = rows("cifar100/kd", ["resnet56_*"], settings)
    assert row.teacher is None
    assert row.stage(0).recipe.teacher.weights == str(tmp_path / "resnet56.pth")
    with pytest.raises(RecipeError, match="has no weights for the teacher vgg13"):
        rows("cifar100/kd", ["vgg13_vgg8"], settings)


@pytest.fixture
def planned(tmp_path: Path) -> list[Row]:
    data = pictures(tmp_path / "data")
    return rows(str(table(tmp_path)), [], Settings(tmp_path / "out", {"data.root": str(data)}))


def test_the_most_informative_rows_come_first(planned: list[Row]) -> None:
    costs = Costs(ImagesOfRecipes(), "cpu")
    order = Order(planned, [5, 6], costs)
    names = []
    while stage := order.next(float("inf")):
        names.append(stage.name)
        order.fail(stage, "not now") if stage.name == "wide seed 5" else _finish(stage.path)
        order.end(stage, 1.0)
    assert names == [
        *("teacher medium", "small seed 5", "teacher large", "wide seed 5"),
        *("unpublished seed 5", "small seed 6", "unpublished seed 6"),
    ]
    assert order.failure(planned[0]) == "not now"
    assert not order.failure(planned[1])


def _finish(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "evaluation.json").write_text("{}")


def test_a_budget_holds_what_is_predicted_to_fit(planned: list[Row]) -> None:
    costs = Costs(ImagesOfRecipes(), "cpu")
    order = Order(planned, [0], costs)
    first = order.next(float("inf"))
    assert first
    assert first.name == "teacher medium"
    costs.end(first, 100.0)
    _finish(first.path)
    wide, small, _ = order.entries
    assert 0 < order.predicted(small) < 100 < order.predicted(wide)
    assert order.next(order.predicted(small) / 2) is None
    fits = order.next(order.predicted(wide) - 1)
    assert fits is not None
    assert fits.name == "small seed 0"
    everything = sum(map(order.predicted, order.entries))
    assert order.predicted_in_all() == pytest.approx(everything)


def test_several_at_once_never_get_the_same_run(planned: list[Row]) -> None:
    order = Order(planned, [0], Costs(ImagesOfRecipes(), "cpu"))
    names = [stage.name if (stage := order.next(float("inf"))) else None for _ in range(3)]
    assert names == ["teacher medium", "teacher large", None], "students wait for their teachers"


def test_every_teacher_is_an_arm_of_its_own(planned: list[Row], tmp_path: Path) -> None:
    images = ImagesOfRecipes()
    order, banks = Order(planned, [0, 1], Costs(images, "cpu")), tmp_path / "banks"
    agenda = RowsAgenda(order, Budget(float("inf")), images, banks, lambda: None)
    names = [job.name for job in agenda.jobs]
    assert len(names) == len(set(names))
    arms = {job.arm for job in agenda.jobs}
    assert {"teacher medium", "teacher large"} < arms
    assert len(arms) == 2 + len(planned), "the seeds of a row are one arm"


def test_rows_that_cannot_be_finished_take_no_time(planned: list[Row], tmp_path: Path) -> None:
    images = ImagesOfRecipes()
    order = Order(planned, [0, 1], Costs(images, "cpu"))
    agenda = RowsAgenda(order, Budget(float("inf")), images, tmp_path / "banks", lambda: None)

    def left() -> set[str]:
        return {job.name for job in agenda.left}

    every = {job.name for job in agenda.jobs}
    assert left() == every
    medium, large = agenda.next(), agenda.next()
    assert medium
    assert large
    assert (medium.name, large.name) == ("teacher medium", "teacher large")
    agenda.end(large, Failure("NetworkError", "It has no such layer."))
    assert left() == every - {"teacher large", "wide seed 0", "wide seed 1"}
    _finish(medium.run.path)
    assert left() == every - {"teacher medium", "teacher large", "wide seed 0", "wide seed 1"}
    # Both seeds are under way: the second one goes on, though the first diverged.
    small, alone, second = (order.next(float("inf")) for _ in range(3))
    assert small
    assert alone
    assert second
    assert [stage.name for stage in (small, alone, second)] == [
        *("small seed 0", "unpublished seed 0", "small seed 1"),
    ]
    small.path.mkdir(parents=True)
    (small.path / "diverged.txt").write_text("The loss became NaN.")
    assert left() == {"small seed 1", "unpublished seed 0", "unpublished seed 1"}
    order.fail(small, "It diverged.")
    order.fail(second, "It diverged.")
    assert left() == {"unpublished seed 0", "unpublished seed 1"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2 min", 120), (7, 7)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["10", "0m", "-5m", "ten", "", "5 weeks", 0, float("nan")])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(RecipeError, match=r"--budget is .* such as 90s, 10m or 1\.5h"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("name", "keys", "options", "error", "words"),
    [
        ("cifar100/kdd", {}, {}, NameNotFound, "did you mean 'cifar100/kd'"),
        ("cifar100/kd/vgg13_vgg8", {}, {}, RecipeError, "name cifar100/kd and --rows vgg13_vgg8"),
        ("fashion/demo", {}, {}, RecipeError, "is a single recipe, no table"),
        ("cifar100/kd", {}, {"rows": ["resnet5_*"]}, NameNotFound, "no row 'resnet5_\\*'"),
        ("cifar100/kd", {}, {"seeds": []}, RecipeError, "name at least one by --seeds"),
        ("cifar100/kd", {}, {"seeds": [1, 1]}, RecipeError, "The seeds 1, 1"),
        ("cifar100/kd", {}, {"epochs_scale": 2.0}, RecipeError, "--epochs-scale is 2; it must be"),
        ("cifar100/kd", {}, {"epochs_scale": float("nan")}, RecipeError, "--epochs-scale is nan"),
        ("cifar100/kd", {}, {"budget": "soon"}, RecipeError, "--budget is 'soon'"),
        ("cifar100/kd", {"seed": 1}, {}, RecipeError, "Seeds are given by --seeds"),
        ("cifar100/kd", {"teacher.weights": "x"}, {}, RecipeError, "teachers by --teachers"),
        ("cifar100/kd", {"student": {"name": "vgg8"}}, {}, RecipeError, "'student' cannot be"),
        ("cifar100/kd", {"training.epoch": 1}, {}, RecipeError, "did you mean 'epochs'"),
        ("cifar100/kd", {}, {}, DataError, "CIFAR100 needs a folder; set data.root"),
        ("cifar100/kd", {}, {"jobs": 0}, RecipeError, "--jobs cannot be 0"),
        ("tinyimagenet/kd", {}, {}, RecipeError, "No table says how the teacher wrn_40_2"),
    ],
)
def test_refusals(
    name: str,
    keys: dict[str, Any],
    options: dict[str, Any],
    error: type[UnderstudyError],
    words: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=words):
        reproduce(name, keys, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
