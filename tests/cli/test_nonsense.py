"""What makes no sense on the command line is refused in one sentence."""

import re
from pathlib import Path

import pytest

from understudy.cli.commands import main

LONG = "n" * 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", LONG), "no file can be called"),
        (("report", LONG), "no file can be called"),
        (("show", f"{LONG}.py:f"), "File name too long"),
        (("train", LONG), "'recipe' is .* too long to name a file"),
        (("train", "--name", LONG), "'name' is .* too long to name a file"),
        (("train", "--student.name", "resnet8", "--out", LONG), "no file can be called"),
        (("train", "--training.lr", "["), "'training.lr' is '\\['; it must be a number"),
        (("train", "--training.ema", ".nan"), "must be a finite number"),
        (("train", "--data.mixup", "1e308"), "must be a finite number"),
        (("train", "--data.mixup", "1e9"), "must be from 0 to 1000"),
        (("train", "--training.epochs", "'3'"), "write it as 3, without quotes"),
        (("train", "--seed", "1" * 20), "must be at most 4294967295"),
        (("train", "--student.options", "{a: " * 300), "must be a group of keys"),
        (("train", "--student.options", "{a: &a {b: *a}}"), "must be a group of keys"),
        (("train", f"--methods{'.a' * 300}", "1"), "more than 50 levels deep"),
        (
            ("distill", "--methods.task.method", "kd", "--teacher.name", "x"),
            "have the label",
        ),
        (("compare", "--seeds", "1.5"), "give a whole number"),
        (("demo", "--seeds", "-1"), "must be from 0 to 4294967295"),
        (("demo", "--seeds", "1", "1"), "repeat themselves"),
        (("show", "[/x]"), "There is no method"),
        (("list", "["), "is not in the list"),
    ],
)
def test_it_is_one_sentence(
    words: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    written = capsys.readouterr()
    assert stopped.value.code == 2, written.err
    assert written.err.count("\n") == 1
    assert re.search(said, written.err), written.err
    assert not list(tmp_path.iterdir())
