"""`understudy predict` on files, folders and patterns, good and broken."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.processes import Fresh
from tests.support.trained_students import NAMES
from understudy.cli.commands import main


@pytest.fixture(scope="module")
def student(saved_comparison: Path) -> Path:
    return saved_comparison / "kd" / "seed0"


@pytest.fixture(scope="module")
def images(saved_comparison: Path) -> Path:
    return saved_comparison.parent / "images" / "test"


def status(*words: object) -> int:
    """The exit status of `understudy predict` on the CPU."""
    try:
        main(["predict", *map(str, words), "--device", "cpu"])
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else -1
    return 0


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_on_the_standard_output(
    student: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(student, images, "--top", 2, "--batch", 4) == 0
    said = capsys.readouterr()
    rows = lines(said.out)
    assert [row["name"] for row in rows] == sorted(map(str, images.rglob("*.png")))
    assert all(set(row["labels"]) < set(NAMES) and len(row["labels"]) == 2 for row in rows)
    assert said.err == f"timm:test_efficientnet in {student / 'student.safetensors'}, on cpu\n"


def test_files_of_json_lines_and_of_a_table(student: Path, images: Path, tmp_path: Path) -> None:
    assert status(student, images / "cat", "--out", tmp_path / "new" / "a.jsonl") == 0
    assert status(student, f"{images}/cat/*.png", "--out", tmp_path / "new" / "a.csv") == 0
    rows = lines((tmp_path / "new" / "a.jsonl").read_text())
    with (tmp_path / "new" / "a.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["label_2"] for row in table] == [row["labels"][1] for row in rows]
    assert [float(row["probability"]) for row in table] == [r["probabilities"][0] for r in rows]
    assert {row["error"] for row in table} == {""}
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_a_file_that_is_no_picture_is_an_error_of_its_own(
    student: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(images / "cat" / "0.png", tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((images / "cat" / "0.png").read_bytes()[:-40])
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "empty").mkdir()
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    words = [tmp_path, tmp_path / "a.pdf", tmp_path / "empty", tmp_path / "missing.jpg"]
    assert status(student, *words, "--out", tmp_path / "a.jsonl") == 1
    rows = {Path(row["name"]).name: row for row in lines((tmp_path / "a.jsonl").read_text())}
    assert set(rows) == {"good.png", "cut.png", "a.pdf", "empty", "b.gif", "one.png", "missing.jpg"}
    assert {name for name, row in rows.items() if "error" in row} == {
        "cut.png", "a.pdf", "empty", "missing.jpg",
    }  # fmt: skip
    assert all(name in row["error"] for name, row in rows.items() if "error" in row)
    assert rows["b.gif"]["note"] == "the first of 2 pictures in the file"
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("understudy: 4 of 7 pictures have no prediction, first: ")
    assert "cut.png cannot be read as an image: " in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "a.txt"], "--out is 'a.txt': give a file that ends in .jsonl or .csv."),
        (["--threshold", "0.4"], "choose by `top` how many"),
        (["--threshold", "x"], "--threshold cannot be 'x'; give a number, such as 0.5."),
        (["--top", "0"], "`top` is 0"),
        (["--draw", "drawn"], "--draw shows boxes, and a network for classification predicts none"),
        (["--beside", "a.html", "--out", "a.csv"], "--beside writes a page alone: leave --out out"),
        (["--device", "banana"], "There is no device 'banana'"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str],
    sentence: str,
    student: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(student), str(images), *words])
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert sentence in said.err
    assert not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["nowhere", "", "images"])
def test_a_folder_without_a_student_is_one_sentence(
    path: str, saved_comparison: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a comparison, the sentence names a run."""
    place = saved_comparison.parent / path if path == "images" else saved_comparison / path
    assert status(place, images) == 2
    assert re.fullmatch(r"understudy: .*\n", capsys.readouterr().err)


def test_boxes_are_written_and_drawn(
    saved_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = saved_detector.parent / "images"
    words = [images, "--threshold", 0, "--draw", tmp_path / "drawn"]
    assert status(saved_detector, *words) == 0
    rows = lines(capsys.readouterr().out)
    assert rows
    for row in rows:
        name = Path(row["name"]).name
        original, drawn = Image.open(images / name), Image.open(tmp_path / "drawn" / name)
        assert drawn.size == original.size == (row["width"], row["height"])
        assert drawn.tobytes() != original.convert("RGB").tobytes()
        assert len(row["boxes"]) == len(row["scores"]) == len(row["labels"]) > 0
    assert status(saved_detector, images, "--threshold", 0, "--draw", images) == 2
    assert "would be overwritten: give another folder by --draw" in capsys.readouterr().err
    table = tmp_path / "a.csv"
    assert status(saved_detector, images, "--threshold", 1, "--out", table) == 0
    first, *others = table.read_text().splitlines()
    assert first == "name,label,score,left,top,right,bottom,note,error"
    assert others == [f"{row['name']},,,,,,,," for row in rows]


def test_a_reader_that_has_enough_is_no_error(student: Path, images: Path) -> None:
    words = ["predict", str(student), str(images), "--batch", "1", "--device", "cpu"]
    code = (
        "import os; from understudy.cli.commands import main; ends = os.pipe();"
        f"os.dup2(ends[1], 1); os.close(ends[0]); os.close(ends[1]); main({words!r})"
    )
    process = Fresh("-c", code)
    assert process.wait() == 1
    assert process.err.count("\n") == 1
    assert process.err.startswith("timm:test_efficientnet in ")
