"""Probes of a run: against its own features by hand, on other images, and what cannot be probed."""

import shutil
from pathlib import Path

import pytest
import torch

from understudy.cli.commands import main
from understudy.errors import DataError, RecipeError
from understudy.experiment.evaluate import student_of
from understudy.experiment.images import read_images
from understudy.experiment.probe import probe
from understudy.experiment.run_directory import Run
from understudy.metrics.neighbours import knn_accuracy, knn_scores, nearest
from understudy.tasks import find


def test_k_nn_is_that_of_the_features_from_training_to_test_images(teacher: Path) -> None:
    probed = probe(teacher, device="cpu")
    run = Run(teacher)
    images = read_images(run.recipe, find("classification"))
    student, seen = student_of(run).eval(), []
    for source in (images.train, images.test):
        pixels = torch.stack([source.image(i) for i in range(len(source))])
        with torch.no_grad():
            seen.append(student.features(pixels / 255)["penultimate"])
    near = nearest(seen[1], seen[0], 20)
    scores = knn_scores(near, images.train.labels, len(images.train.classes))
    expected = 100 * knn_accuracy(scores, images.test.labels)
    assert probed.accuracies["student"]["k-NN 20"] == pytest.approx(expected, abs=0.5)
    assert set(probed.accuracies) == {"student"}
    assert (probed.stored, probed.images) == (len(images.train), len(images.test))
    assert probed.accuracies["student"]["linear"] > 100 / probed.classes


def test_a_command_prints_it_for_images_without_training_labels(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(Run(teacher).recipe.data.root)
    shutil.copytree(root / "test", tmp_path / "test")
    first = next(root.glob("train/*/*"))
    (tmp_path / "train").mkdir()
    for i in range(40):
        shutil.copy(first, tmp_path / "train" / f"{i}{first.suffix}")
    main(["probe", str(teacher), "--data.root", str(tmp_path), "--data.images", "30"])
    said = capsys.readouterr().out
    assert "linear" in said
    assert "by each other" in said


def test_says_what_cannot_be_probed(teacher: Path) -> None:
    with pytest.raises(RecipeError, match="one class for each image"):
        probe(teacher, {"task": "multilabel"})
    bare = Path(Run(teacher).recipe.data.root) / "test" / "bag"
    with pytest.raises(DataError, match="none of these has one"):
        probe(teacher, {"data.root": str(bare), "data.validation": 0.5, "data.images": None})
