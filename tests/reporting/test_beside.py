"""The page of predictions beside each other: teacher, control and student on the same pictures."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import understudy
from understudy.cli.commands import main
from understudy.deployment.prediction.companions import companions
from understudy.deployment.prediction.predictor import Classes
from understudy.errors import DataError, RunError
from understudy.reporting.beside import write_beside


@pytest.fixture(scope="module")
def run(saved_comparison: Path) -> Path:
    return saved_comparison / "kd" / "seed0"


@pytest.fixture(scope="module")
def images(saved_comparison: Path) -> Path:
    return saved_comparison.parent / "images" / "test"


def test_teacher_control_and_student_are_those_of_the_comparison(
    saved_comparison: Path, run: Path, images: Path
) -> None:
    for path in (run, saved_comparison):
        networks = companions(path, device="cpu")
        assert [each.role for each in networks] == ["teacher", "control", "student"]
        assert [each.name for each in networks] == ["teacher", "control", "kd"]
    control = understudy.load(saved_comparison / "control" / "seed0", device="cpu")
    teacher, loaded, _ = (each.predictor for each in networks)
    assert teacher is not None
    assert loaded is not None
    assert loaded.predict(images).to_dict() == control.predict(images).to_dict()
    hits = [
        each.label == Path(each.name).parent.name
        for each in teacher.predict(images)
        if isinstance(each, Classes)
    ]
    reached = understudy.Comparison.load(saved_comparison).teacher["metrics"]["top1"]
    assert 100 * sum(hits) / len(hits) == pytest.approx(reached)


def test_the_page_shows_every_picture_and_every_network(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    page = tmp_path / "beside.html"
    words = [str(run), str(images), str(tmp_path / "cut.png"), "--beside", str(page)]
    main(["predict", *words, "--device", "cpu"])
    assert capsys.readouterr().out == f"page: {page}\n"
    text = page.read_text()
    assert text.count('class="shot"') == 10
    assert text.count("<figcaption>") == 9 * 3
    assert text.count("cut.png cannot be read as an image") == 1
    assert re.search(r"kd decides as the teacher on \d of 9 pictures, control on \d<", text)
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    by_teacher = companions(run, device="cpu")[0].predictor
    assert by_teacher is not None
    student = understudy.load(run, device="cpu")
    same = sum(
        a.to_dict()["labels"][0] == b.to_dict()["labels"][0]
        for a, b in zip(by_teacher.predict(images), student.predict(images), strict=True)
    )
    assert f"kd decides as the teacher on {same} of 9 pictures" in text
    assert text.count('class="word loss"') >= 9 - same


def test_a_detectors_page_has_boxes_and_says_what_is_missing(
    saved_detector: Path, tmp_path: Path
) -> None:
    images = saved_detector.parent / "images"
    page = write_beside(saved_detector, images, tmp_path, threshold=0.0, device="cpu")
    text = page.read_text()
    assert page == tmp_path / "beside.html"
    assert "not shown: The recipe names no teacher." in text
    assert "not shown: There is no control" in text
    assert "<rect" in text
    assert re.search(r"Objects named in 3 pictures: run \d+", text)


def test_label_sets_beside_each_other(saved_labeller: Path, tmp_path: Path) -> None:
    images = saved_labeller.parent / "images"
    text = write_beside(saved_labeller, images, tmp_path, device="cpu").read_text()
    assert "Predictions on 3 pictures" in text


def test_a_page_without_pictures_or_without_a_run_is_refused(
    run: Path, saved_comparison: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no picture to show: There is no file or folder"):
        write_beside(run, [tmp_path / "missing.png"], tmp_path, device="cpu")
    exported = tmp_path / "exported"
    exported.mkdir()
    for name in ("config.json", "student.safetensors"):
        shutil.copy(run / name, exported)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(RunError, match="belongs to no run, whose recipe would name"):
        write_beside(exported, tmp_path, tmp_path, device="cpu")


def test_a_student_is_of_the_run_that_trained_it_or_that_it_was_exported_from(
    run: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(run, own)
    exported, foreign = own / "onnx", own / "foreign"
    for folder in (exported, foreign):
        folder.mkdir()
        for name in ("config.json", "student.safetensors"):
            shutil.copy(run / name, folder)
    (exported / "export.json").write_text("{}")
    for student in (own / "student.safetensors", exported, exported / "student.safetensors"):
        assert companions(student, device="cpu")[-1].name == "own"
    with pytest.raises(RunError, match="foreign belongs to no run"):
        companions(foreign, device="cpu")
