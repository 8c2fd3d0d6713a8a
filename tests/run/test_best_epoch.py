"""The best epoch is chosen on validation images, and every number says which images it is of."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Paint
from tests.support.small_runs import CNN, Stop
from understudy import tasks
from understudy.cli.commands import main
from understudy.config.recipe import Recipe
from understudy.data import MemorySource
from understudy.errors import Interrupted, RecipeError, RunError
from understudy.experiment.callback import Callback
from understudy.experiment.images import Images, read_images
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.reporting import report
from understudy.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "student": {"name": CNN, "options": {"width": 4}},
    "data": {"augment": "none"},
    "training": {"epochs": 3, "batch": 8},
}


def noise(dark: int, bright: int) -> MemorySource:
    """Images that tell nothing of their labels."""
    draw = torch.Generator().manual_seed(dark)
    size = (dark + bright, 3, 8, 8)
    pixels = torch.randint(256, size, generator=draw, dtype=torch.uint8)
    return MemorySource(pixels, torch.tensor([0] * dark + [1] * bright), ["dark", "bright"])


def images(*, validation: bool = True) -> Images:
    """Of the test images more are dark, of the validation images more are bright."""
    return Images(noise(8, 8), noise(6, 4), noise(1, 3) if validation else None)


class Answers(Callback):
    """Makes the student give one answer for all images: dark, bright, dark in three epochs."""

    def step(self, trainer: Trainer) -> None:
        head = trainer.distiller.student.get_submodule("module.fc")
        torch.nn.init.zeros_(head.weight)
        answer = trainer.position.epoch % 2
        head.bias.data.copy_(torch.tensor([1.0 - answer, float(answer)]))


def answer(weights: Path) -> int:
    """The class that a student of `Answers` gives."""
    return int(load_file(weights)["fc.bias"].argmax())


def tops(run: Run, key: str = "metrics") -> list[float | None]:
    return [record[key] and record[key]["top1"] for record in run.history]


def test_validation_images_choose_and_test_images_measure(tmp_path: Path) -> None:
    run = train(SMALL, out=tmp_path, images=images(), callback=Answers())
    assert [record["split"] for record in run.history] == ["validation"] * 3
    assert tops(run) == [25, 75, 25]
    assert tops(run, "final_metrics") == [60, 40, None]
    done = run.evaluation
    assert (done["split"], done["images"], done["metrics"]["top1"]) == ("test", 10, 60)
    assert (done["best"]["epoch"], done["best"]["metrics"]["top1"]) == (2, 40)
    assert answer(tmp_path / "best" / "student.safetensors") == 1
    assert answer(tmp_path / "student.safetensors") == 0
    counts = {name: split["images"] for name, split in run.environment["splits"].items()}
    assert counts == {"train": 16, "validation": 4, "test": 10}


def test_without_validation_images_no_epoch_is_chosen(tmp_path: Path) -> None:
    run = train(SMALL, out=tmp_path, images=images(validation=False), callback=Answers())
    assert {record["split"] for record in run.history} == {"test"}
    assert tops(run) == [60, 40, 60]
    assert run.evaluation["best"] is None
    assert run.environment["splits"]["validation"] is None
    assert not (tmp_path / "best").exists()


def test_none_keeps_no_best_epoch(tmp_path: Path) -> None:
    recipe = Recipe.load(SMALL, {"training.best": "none"})
    run = train(recipe, out=tmp_path, images=images(), callback=Answers())
    assert tops(run) == [25, 75, 25]
    assert run.evaluation["best"] is None
    assert not (tmp_path / "best").exists()


def test_the_test_images_choose_if_asked_and_all_outputs_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.load(SMALL, {"training.best": "test"})
    run = train(
        recipe, out=tmp_path, images=images(validation=False), callback=Answers(), progress=True
    )
    best = run.evaluation["best"]
    assert (best["epoch"], best["chosen_on"], best["metrics"]["top1"]) == (3, "test", 60)
    page = report(tmp_path)
    said = capsys.readouterr().out
    assert "the TEST images choose best/ (training.best)" in said
    sentence = "The test images themselves chose the best epoch, 3: its top1 of 60.00 is higher"
    for text in (said, page.read_text("utf-8"), page.with_suffix(".md").read_text("utf-8")):
        assert sentence in text
    assert Recipe().digest == Recipe.load({}, {"training.best": "validation"}).digest


def test_a_page_tells_the_splits_and_the_best_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(SMALL, out=tmp_path, images=images(), callback=Answers(), progress=True)
    said = capsys.readouterr().out
    assert "Images: train 16, validation 4, test 10; the validation images choose best/." in said
    assert "epoch 2/3  validation top1 75.00" in said
    sentence = "The validation images chose the best epoch, 2: its top1 on the test images is 40.00"
    assert sentence in said
    page = report(tmp_path)
    text, markdown = page.read_text("utf-8"), page.with_suffix(".md").read_text("utf-8")
    assert sentence in text
    assert "Validation top-1" in text
    assert "top-1, best epoch" in markdown
    for fact in ("train images: 16", "validation images: 4", "test images: 10"):
        assert f"- {fact}" in markdown


class Forgets(Callback):
    """Makes all features of the student alike in the last epoch."""

    def step(self, trainer: Trainer) -> None:
        if trainer.position.epoch == 2:
            for weights in trainer.distiller.student.parameters():
                torch.nn.init.zeros_(weights.data)


def test_the_best_epoch_of_unlabelled_training_is_told_by_what_chose_it(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.load(
        SMALL,
        {"task": "none", "teacher.weights": str(teacher), "methods": {"kd": {}}, "trust": True},
    )
    many = Images(noise(8, 8), noise(24, 16), noise(10, 30))
    run = train(recipe, out=tmp_path, images=many, callback=Forgets(), progress=True)
    best = run.evaluation["best"]
    assert best["epoch"] < 3
    assert best["chosen_by"] == "cka"
    assert "knn" not in best["metrics"], "measured of finished students alone"
    sentence = (
        f"The validation images chose the best epoch, {best['epoch']}: its cka on the test images "
        f"is {best['fidelity']['cka']:.4f}."
    )
    first = capsys.readouterr().out
    assert "knn" in first
    train(recipe, out=tmp_path, resume=True, progress=True)
    page = report(tmp_path)
    for text in (first, capsys.readouterr().out, page.read_text("utf-8")):
        assert sentence in text


def test_a_continued_run_has_the_same_best_epoch(tmp_path: Path) -> None:
    whole = train(SMALL, out=tmp_path / "whole", images=images())
    with pytest.raises(Interrupted):
        train(SMALL, out=tmp_path / "part", images=images(), callback=Stop(5, signal.SIGTERM))
    with pytest.raises(RunError, match=r"The validation images changed .* none now"):
        train(SMALL, out=tmp_path / "part", images=images(validation=False), resume=True)
    part = train(SMALL, out=tmp_path / "part", images=images(), resume=True)
    assert part.evaluation["best"] == whole.evaluation["best"]
    kept = [run.path / "best" / "student.safetensors" for run in (whole, part)]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def folder(paint: Paint, tmp_path: Path, names: Sequence[str], **data: Any) -> Recipe:
    for number, name in enumerate(names):
        for label in ("cat", "dog"):
            for i in range(1 if number else 6):
                seed = 100 * number + 10 * len(label) * (label == "dog") + i
                paint(f"{name}/{label}/{i}.png", seed=seed, size=(32, 32))
    spec = {"source": "folder", "root": str(tmp_path), "augment": "none"} | data
    return Recipe.from_dict({**SMALL, "data": spec})


@pytest.mark.parametrize(
    ("names", "validation", "counts"),
    [
        (("train", "test"), 0, (12, None, (2, "folder: test"))),
        (("train", "val"), 0, (12, None, (2, "folder: val"))),
        (("train", "valid", "test"), 0, (12, (2, "folder: valid"), (2, "folder: test"))),
        (
            ("train", "test"),
            0.5,
            (6, (6, "held out of folder: train by data.validation=0.5"), (2, "folder: test")),
        ),
        (("train",), 0.5, (6, (6, "held out of folder: train by data.validation=0.5"), None)),
    ],
)
def test_which_split_is_what(
    paint: Paint,
    tmp_path: Path,
    names: Sequence[str],
    validation: float,
    counts: tuple[int, tuple[int, str] | None, tuple[int, str] | None],
) -> None:
    recipe = folder(paint, tmp_path, names, validation=validation)
    read = read_images(recipe, tasks.find("classification")).counts()
    assert read["train"]["images"] == counts[0]
    for name, expected in zip(("validation", "test"), counts[1:], strict=True):
        measured = read[name] and (read[name]["images"], read[name]["origin"])
        assert measured == expected


def test_without_test_images_the_numbers_are_called_those_of_validation(
    paint: Paint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = folder(paint, tmp_path, ("train",), validation=0.5)
    run = train(recipe, out=tmp_path / "run", callback=Answers(), progress=True)
    assert (run.evaluation["split"], run.evaluation["images"]) == ("validation", 6)
    assert run.evaluation["best"]["split"] == "validation"
    said = capsys.readouterr().out
    assert "is of the same images, since there are no test images" in said
    top1 = run.evaluation["metrics"]["top1"]
    assert f": validation top1 {top1:.2f} after" in said
    assert "top-1 on the validation images after 3 epochs" in report(run).read_text("utf-8")
    main(["evaluate", str(run.path), "--trust", "true", "--device", "cpu"])
    line = "validation images 6 (held out of folder: train by data.validation=0.5)"
    assert line in " ".join(capsys.readouterr().out.split())


def test_files_left_out_are_counted_once_where_images_are_held_out(
    paint: Paint, tmp_path: Path
) -> None:
    recipe = folder(paint, tmp_path, ("train", "test"), validation=0.5)
    for split in ("train", "test"):
        (tmp_path / split / "cat" / "broken.png").write_text("no picture")
    skipped = read_images(recipe, tasks.find("classification")).skipped
    assert len(skipped) == 2


def test_images_held_out_and_chosen_on_the_test_images_are_refused() -> None:
    recipe = Recipe.load(SMALL, {"training.best": "test", "data.validation": 0.1})
    with pytest.raises(RecipeError, match=r"held out by data\.validation have no use"):
        read_images(recipe, tasks.find("classification"))
