"""Progress and messages: what is printed, and that nothing is left behind."""

import logging
import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import understudy
from tests.support.clock import Clock
from understudy.config.recipe import Recipe
from understudy.experiment.callback import Callback
from understudy.experiment.live_details import LiveDetails
from understudy.experiment.progress import Terminal, displayed

LOGGER = logging.getLogger("understudy")
SHORT = {"training.epochs": 2, "data.images": 100}


class Epochs(Callback):
    """Keeps the numbers of the epochs it is called with, and their records."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.records: list[dict[str, Any]] = []

    def epoch(self, record: dict[str, Any]) -> None:
        self.numbers.append(record["epoch"])
        self.records.append(record)


def test_progress_prints_messages_and_rows_and_calls_the_callback(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = Epochs()
    understudy.distill(tiny, SHORT, out=tmp_path, device="cpu", progress=True, callback=epochs)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny: 2 epochs of 4 steps"
    assert lines[1].startswith("on cpu, fp32")
    assert lines[2].startswith("Images: train 100 (folder: train, part of its 600), validation")
    assert [re.match(r"  epoch (\d)/2  top1 ", line)[1] for line in lines[3:5]] == ["1", "2"]
    assert re.search(r"images/s  0:\d\d:\d\d left$", lines[3])
    assert lines[4].endswith("images/s")
    assert lines[-1].startswith("tiny: top1 ")
    assert epochs.numbers == [1, 2]
    assert not LOGGER.handlers
    assert LOGGER.level == logging.NOTSET


def test_without_progress_nothing_is_printed(
    tiny: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    understudy.distill(tiny, SHORT, out=tmp_path, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_a_comparison_prints_one_row_per_run(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = Epochs()
    comparison = understudy.compare(
        tiny,
        SHORT,
        methods=["kd"],
        seeds=[0],
        out=tmp_path,
        device="cpu",
        progress=True,
        callback=epochs,
    )
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S+) seed 0 +\[(\d)/2\]", printed, re.MULTILINE) == [
        ("control", "1"), ("kd", "2"),
    ]  # fmt: skip
    assert printed.count("on cpu, fp32") == 1, "a message of every run is printed once"
    of_control, of_kd = epochs.records[:2], epochs.records[2:]
    assert [record["control"] for record in of_kd] == [x["metrics"]["top1"] for x in of_control]
    assert not any("control" in record for record in of_control)
    teacher = comparison.teacher["metrics"]["top1"]
    assert {record.get("teacher") for record in epochs.records} == {teacher}
    assert "control" not in (tmp_path / "kd" / "seed0" / "metrics.jsonl").read_text()


def test_the_lines_below_the_bar_show_losses_and_the_metric_beside_others() -> None:
    details = LiveDetails()
    assert details.__rich__().plain == ""
    record = {
        "epoch": 2, "split": "validation", "losses": {"total": 3.0, "task": 1.0, "kd": 2.0},
        "metrics": {"top1": 71.234}, "fidelity": None, "teacher": 83.0, "control": 70.5,
    }  # fmt: skip
    details.take(record | {"metrics": {"top1": 75.0}, "epoch": 1}, "top1")
    details.take(record, "top1")
    assert details.__rich__().plain.splitlines() == [
        "  losses  task 1.0000  kd 2.0000  total 3.0000",
        "  top1  71.23 (validation images, epoch 2)   best 75.00   teacher 83.00   control 70.50",
    ]
    details.clear()
    assert details.__rich__().plain == ""


def test_an_error_leaves_no_handler(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(understudy.UnderstudyError):
        understudy.train(tiny, {"student": "resnet9"}, out=tmp_path, progress=True)
    assert not LOGGER.handlers


def test_a_level_of_the_user_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.setLevel(logging.DEBUG)
    try:
        with Terminal():
            assert LOGGER.level == logging.DEBUG
            LOGGER.debug("quiet")
            LOGGER.warning("loud")
        assert LOGGER.level == logging.DEBUG
    finally:
        LOGGER.setLevel(logging.NOTSET)
    assert capsys.readouterr().out == "loud\n"


def test_only_the_first_process_displays_and_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = Epochs()
    with displayed(True, None) as listener:
        assert isinstance(listener, Terminal)
    with displayed(False, epochs) as listener:
        assert listener is epochs
    monkeypatch.setenv("RANK", "1")
    with displayed(True, epochs) as listener:
        assert listener is None
        assert not LOGGER.handlers


def test_a_series_has_a_line_a_minute_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    terminal = Terminal(Console(file=StringIO(), width=120))
    task, epochs = SimpleNamespace(headline="top1"), SimpleNamespace(epochs=9)
    distiller = SimpleNamespace(trainable=SimpleNamespace(task=task), distillations={})
    position = SimpleNamespace(epoch=0)
    trainer: Any = SimpleNamespace(
        training=epochs, loader=range(3), distiller=distiller, position=position
    )
    with terminal:
        terminal.series(4)
        terminal.start(trainer, "kd seed 0")
        for number in range(1, 8):
            clock.now += 20.0
            record = {"epoch": number, "images_per_second": 99.0, "losses": {"total": 1.5}}
            terminal.epoch(record | {"metrics": {"top1": 40.0 + number}, "fidelity": {}})
    written: Any = terminal.console.file
    assert written.getvalue().splitlines() == [
        "kd seed 0 [1/4]  epoch 3/9  top1 43.00  loss 1.5000  99 images/s  0:02:00 left",
        "kd seed 0 [1/4]  epoch 6/9  top1 46.00  loss 1.5000  99 images/s  0:01:00 left",
    ]
