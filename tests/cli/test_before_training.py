"""The doctor before `distill`, `compare` and `tune`: what stops them, what is kept, how to skip."""

import json
import re
from pathlib import Path

import pytest

from tests.support.planted_teachers import OPTIONS, clothes, spoiled
from tests.support.small_images import CLOTHES
from tests.support.small_runs import CNN
from understudy.cli.commands import main

FLAGS = [
    *("--data.source", "folder", "--data.root", CLOTHES, "--data.images", "200"),
    *("--student.name", CNN, "--trust", "true", "--device", "cpu", "--training.epochs", "1"),
    *("--teacher.name", CNN, "--teacher.options", json.dumps(OPTIONS)),
    *("--training.batch", "50", "--training.lr", "0.01", "--training.schedule", "cosine"),
]
"""A distillation without the weights of its teacher."""

COMMANDS = {
    "distill": ["--method", "kd"],
    "compare": ["--methods", "kd", "--seeds", "0", "--jobs", "1"],
    "tune": ["--methods", "kd", "--trials", "1", "--seeds", "5", "--jobs", "1", "--threads", "1"],
}


@pytest.fixture(scope="module")
def reversed_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a teacher whose classes are in another order: it is worse than chance."""
    return spoiled(clothes, tmp_path_factory.mktemp("teacher"), "reversed")


@pytest.fixture(scope="module")
def good_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoiled(clothes, tmp_path_factory.mktemp("teacher"), "none")


def run(command: str, teacher: Path, out: Path, *words: str) -> None:
    normed = [f"--{role}.{key}" for role in ("teacher", "student") for key in ("mean", "std")]
    values = ["[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]"] * 2
    inputs = [word for pair in zip(normed, values, strict=True) for word in pair]
    flags = [*FLAGS, *inputs, "--teacher.weights", str(teacher), "--out", str(out)]
    main([command, *flags, *COMMANDS[command], *words])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_stops_it_and_says_the_flags(
    command: str, reversed_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(command, reversed_teacher, tmp_path)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out.startswith("doctor: 1 error, ")
    (sentence,) = said.err.splitlines()
    assert "with its classes in another order (reversed)" in sentence
    assert "Fix: --teacher.classes " in sentence
    assert "--no-doctor trains all the same" in sentence
    # What was found is kept, and nothing was trained.
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["doctor.json"]
    (error,) = (f for f in _findings(tmp_path) if f["level"] == "error")
    assert error["check"] == "teacher_accuracy"
    assert error["flags"].startswith("--teacher.classes ")


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_skipped(
    command: str, reversed_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(command, reversed_teacher, tmp_path, "--no-doctor")
    assert "doctor:" not in capsys.readouterr().out
    assert not (tmp_path / "doctor.json").exists()
    assert next(tmp_path.rglob("student.safetensors"), None)


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_kept_and_shown_in_the_report(
    command: str, good_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(command, good_teacher, tmp_path)
    said = capsys.readouterr().out
    headlines = [line for line in said.splitlines() if line.startswith("doctor:")]
    assert len(headlines) == 1
    assert re.match(r"doctor: .*, \d+ checks in \d+ s", headlines[0])
    content = json.loads((tmp_path / "doctor.json").read_text())
    assert content["short"]
    assert {"classes", "losses", "teacher_accuracy"} <= set(content["checks"])
    notes = [f["message"] for f in content["findings"] if f["check"] == "teacher_accuracy"]
    assert len(notes) == 1
    assert "The teacher's own top1 on " in notes[0]
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Before training</h2>" in page
    assert f"The doctor made {len(content['checks'])} checks (short form" in page


def _findings(folder: Path) -> list[dict[str, str]]:
    findings: list[dict[str, str]] = json.loads((folder / "doctor.json").read_text())["findings"]
    return findings
