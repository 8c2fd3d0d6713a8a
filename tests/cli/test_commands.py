"""Every command end to end on small runs, and every mistake in one sentence."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from select import select
from typing import Any

import pytest
from torch import nn

from tests.support.processes import Fresh, command_line, until
from tests.support.shipped_recipes import by_file
from tests.support.small_images import CLOTHES
from understudy import data, methods, models, tasks
from understudy.cli import listing
from understudy.cli.commands import COMMANDS, main
from understudy.config.recipe import Recipe

SMALL = [
    *("--data.source", "folder", "--data.root", CLOTHES, "--data.images", "200"),
    *("--data.validation", "0.05", "--training.epochs", "1"),
    *("--training.batch", "32", "--student.name", "resnet8", "--device", "cpu"),
    *("--student.options", "{widths: [4, 4, 6, 8]}"),
]


def run(*words: str | Path) -> None:
    """One command, as typed."""
    main([str(word) for word in words])


def fails(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one sentence with which a command of the user fails."""
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.err.startswith("understudy: ")
    assert said.err.count("\n") == 1
    assert not said.out
    return said.err


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a teacher trained by the command line."""
    path = tmp_path_factory.mktemp("runs") / "teacher"
    # Above chance, or nothing would be distilled from it without --no-doctor.
    longer = ["--training.epochs", "12", "--training.evaluate_every", "12"]
    run("train", *SMALL, *longer, "--training.schedule", "cosine", "--out", path)
    return path


def test_train_writes_a_run_and_its_page(teacher: Path) -> None:
    assert json.loads((teacher / "evaluation.json").read_text())["metrics"]["top1"] > 0
    assert (teacher / "report.html").is_file()


def test_distill_with_flags_of_methods(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--teacher.weights", teacher, "--method", "kd", "lshfm", "--methods.lshfm.hashes=64"]
    run("distill", *SMALL, *words, "--methods.kd.weight", "5e-1", "--out", tmp_path)
    made = Recipe.load(tmp_path / "recipe.yaml")
    assert made.methods == {"kd": {"weight": 0.5}, "lshfm": {"hashes": 64}}
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"doctor: .*\d+ checks in \d+ s", lines[0])
    (settings,) = (line for line in lines if line.startswith("on cpu"))
    assert settings.startswith("on cpu, fp32, channels last, not compiled, 1 thread (flags: --")
    epoch = r"  epoch 1/1  validation top1 [\d.]+  loss [\d.]+  [\d,]+ images/s"
    assert any(re.fullmatch(epoch, line) for line in lines)
    assert lines[-1] == f"report: {tmp_path / 'report.html'}"


def test_profile_shows_where_a_step_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train", *SMALL, "--training.epochs", "3", "--profile", "--out", tmp_path)
    said = capsys.readouterr().out
    assert "profile of 10 steps" in said
    assert re.search(r"^backward +[\d.]+ +[\d.]+%$", said, re.MULTILINE)
    assert f"trace: {tmp_path / 'profile.json'}" in said


def test_method_adds_to_the_recipe(teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("methods: {kd: {temperature: 2.0}}")
    words = ["--teacher.weights", teacher, "--method", "kd", "nd", "--out", tmp_path / "run"]
    run("distill", path, *SMALL, *words)
    made = Recipe.load(tmp_path / "run" / "recipe.yaml")
    assert made.methods == {"kd": {"temperature": 2.0}, "nd": {}}
    assert made.name == "mine"


def test_compare_shows_a_row_for_each_run_and_keeps_what_is_finished(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", *SMALL, "--teacher.weights", teacher, "--out", tmp_path]
    words += ["--methods", "kd+nd", "--methods.nd.weight", "2", "--seeds", "0", "1", "--jobs", "1"]
    run(*words)
    first = capsys.readouterr().out
    rows = re.findall(r"^(\S+ seed \d) +\[(\d)/4\]  top1 [\d.]+  0:00:\d\d$", first, re.MULTILINE)
    assert rows == [("control seed 0", "1"), ("kd+nd seed 0", "2"),
                    ("control seed 1", "3"), ("kd+nd seed 1", "4")]  # fmt: skip
    assert " kd+nd " in first
    written = (tmp_path / "kd+nd" / "seed1" / "evaluation.json").stat().st_mtime_ns
    run(*words, "--resume")
    assert re.findall(r"\[(\d)/4\]", capsys.readouterr().out) == ["1", "2", "3", "4"]
    assert (tmp_path / "kd+nd" / "seed1" / "evaluation.json").stat().st_mtime_ns == written


def test_a_bank_is_planned_built_and_verified(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--teacher.weights", teacher, "--data.augment", "none"]
    words += ["--bank.path", tmp_path / "bank"]
    run("bank", "plan", *words)
    assert "200 images × 1 views" in capsys.readouterr().out
    run("bank", "build", *words)
    assert "200 records" in capsys.readouterr().out
    run("bank", "verify", *words)
    assert "200 records computed again" in capsys.readouterr().out
    capsys.readouterr()
    assert "filled with another dtype" in fails(
        capsys, "bank", "verify", *words, "--bank.dtype", "fp16"
    )


def test_evaluate_and_report(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("evaluate", teacher, "--device", "cpu")
    stored = json.loads((teacher / "evaluation.json").read_text())["metrics"]["top1"]
    assert re.search(rf"top-1 +{stored:.3f}", capsys.readouterr().out)
    run("report", teacher, teacher, "--out", tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()


def named(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The names in a printed list."""
    return {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}


@pytest.mark.parametrize("kind", ["methods", "papers", "data", "tasks", "recipes"])
def test_list_names_everything(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("list", kind)
    known = {
        "methods": methods.names(),
        "papers": methods.names(),
        "data": data.names(),
        "tasks": tasks.names(),
        "recipes": list(listing.tables.shipped()),
    }[kind]
    assert set(known) <= named(capsys)


def test_a_list_of_recipes_loads_no_torch() -> None:
    code = "import sys, understudy.cli as c; c.main(['list', 'recipes']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "understudy.config.recipe" in loaded
    assert "torch" not in loaded


def test_a_list_of_models_names_all_and_builds_only_shipped_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: set[str] = set()
    initialise = nn.Module.__init__

    def spy(module: nn.Module, *arguments: Any, **options: Any) -> None:
        built.add(type(module).__module__.partition(".")[0])
        initialise(module, *arguments, **options)

    monkeypatch.setattr(nn.Module, "__init__", spy)
    run("list", "models")
    assert built == {"torch", "understudy"}
    assert set(models.names()) <= named(capsys)


@pytest.mark.parametrize(
    "name",
    [
        *methods.names(),
        *data.names(),
        *tasks.names(),
        # Of every file the last row; what is shown of all is tested with the recipes.
        *(names[-1] for names in by_file().values()),
        "resnet8",
    ],
)
def test_show_explains_everything(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("show", name)
    said = capsys.readouterr().out
    if name in methods.names():
        keys = ["weight", *methods.hyper_parameters(methods.find(name))]
        assert set(keys) <= {line.split(" ")[0] for line in said.splitlines()}
    assert len(said) > 40


def test_paragraphs_flow_and_equations_stand() -> None:
    text = "One\ntwo.\n\n    a = b\n    c = d\n\n- item\n  goes on\n- next\n"
    assert str(listing._flowing(text)) == (
        "One two.\n\n    a = b\n    c = d\n\n- item goes on\n- next"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(command, "--help")
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert COMMANDS[command].help in " ".join(said.split())
    assert ("keys of the recipe: training" in said) == COMMANDS[command].takes_recipe_keys


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    said = capsys.readouterr().out
    assert all(f"  {command}" in said for command in COMMANDS)
    run("--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("distil", "There is no command 'distil' (did you mean 'distill'?)."),
        ("train --training.epoch 3", "no flag --training.epoch (did you mean '--training.epochs'"),
        ("train --teacher resnet8", "no flag --teacher (did you mean '--teacher.name'?)"),
        ("train --training.epochs x", "'training.epochs' is 'x'; it must be a whole number."),
        ("train --data.augment crop_flop", "(did you mean 'crop_flip'?)"),
        ("train --student.mean x", "'student.mean[0]' is 'x'; it must be a number."),
        ("train --student.options {width:3}", "it must be a group of keys."),
        ("train a b", "Unrecognized arguments: b"),
        ("train nothing", "There is no recipe 'nothing'"),
        ("train --student.name resnet88", "(did you mean 'resnet8'?)"),
        ("train", "The recipe names no student: give --student.name."),
        ("train --methods.kd.weight 1", "use `understudy distill`"),
        ("distill --methods.kd.weight", "--methods.kd.weight needs a value"),
        ("distill --methods.kd.weight --resume", "--methods.kd.weight needs a value"),
        ("distill --student.name resnet8", "Distilling needs a teacher and a method"),
        ("compare --seeds x", "--seeds cannot be 'x'; give a whole number."),
        ("reproduce cifar100/kd --epochs-scale x", "--epochs-scale cannot be 'x'; give a number"),
        ("reproduce cifar100/kd --budget 10", "--budget is '10'; it must be a duration"),
        ("reproduce cifar100/kd --rows resnet5", "There is no row 'resnet5' (did you mean"),
        ("compare --methods kd", "A comparison needs a teacher"),
        ("compare --teacher.name a --methods kdd", "There is no method 'kdd' (did you mean 'kd'"),
        ("evaluate", "Only a trained network can be evaluated: give a run directory, or --student"),
        ("evaluate nowhere", "nowhere is no run directory"),
        ("--resume", "--resume needs the directory to continue"),
        ("--resume nowhere", "There is nothing in nowhere to continue: it does not exist."),
        ("distill --resume nowhere", "There is nothing in nowhere to continue"),
        ("reproduce", "There is no table to reproduce"),
        ("report nowhere", "There is no run at nowhere"),
        ("list method", "'method' is not in the list (did you mean 'methods'?)."),
        ("show lshmf", "(did you mean 'lshfm'?)"),
        ("show torchvision:resnet1", "resnet1"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, *words.split())
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback() -> None:
    process = command_line("show", "lshmf", "--debug")
    assert process.wait() == 1
    assert "Traceback (most recent call last)" in process.err
    assert process.err.splitlines()[-1].startswith("understudy.errors.NameNotFound: ")


def test_a_fault_of_ours_has_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def faulty(*_: Any, **__: Any) -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr("understudy.reporting.report", faulty)
    with pytest.raises(SystemExit) as stopped:
        run("report", tmp_path)
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("understudy: Internal error, KeyError")
    assert said.count("\n") == 1


def test_sigint_in_training_is_one_sentence_and_saved(tmp_path: Path) -> None:
    process = command_line("train", *SMALL, "--training.epochs", "60", "--out", tmp_path)
    until(lambda: "epoch  1/60" in process.out, process)
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.err.count("\n") == 1
    assert "Stopped by SIGINT" in process.err
    assert f"continue with `understudy --resume {tmp_path}`" in process.err
    assert (tmp_path / "last" / "state.ckpt").is_file()


def test_sigint_outside_of_training_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(kind: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(listing, "table", stop)
    # A shell starts what runs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            run("list", "models")
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "understudy: Stopped by SIGINT.\n"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m understudy list recipes | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert not done.stderr


def test_a_terminal_sees_a_table_and_a_bar_that_leaves(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [*SMALL, "--training.epochs", "3", "--out", str(tmp_path)]
    process = Fresh(
        *("-m", "understudy", "train", *words),
        environment={"TERM": "xterm-256color", "COLUMNS": "100"},
        terminal=os.ttyname(theirs),
    )
    seen = b""
    while process.poll() is None or select([ours], [], [], 0)[0]:
        if select([ours], [], [], 0.01)[0]:
            seen += os.read(ours, 4096)
    status = process.wait()
    os.close(ours)
    os.close(theirs)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert status == 0
    assert "left" in text
    assert re.search(r"losses  task \d\.\d{4}\b", text)
    assert "total" not in text  # of one loss
    assert re.search(r"top1  [\d.]+ \(validation images, epoch \d\)   best [\d.]+", text)
    rows = [line.rsplit("\r", 1)[-1].split() for line in text.splitlines()]
    assert ["epoch", "val.", "top1", "loss", "task"] in rows
    assert [row[0] for row in rows if len(row) == 4 and re.fullmatch(r"\d/3", row[0])] == [
        "1/3", "2/3", "3/3",
    ]  # fmt: skip
    assert seen.count(b"\x1b[?25h") >= seen.count(b"\x1b[?25l") > 0, "the cursor stays hidden"


def test_processes_but_the_first_are_silent(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("understudy.cli.output.RANK", "1")
    run("report", teacher)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", "--out", "s3://b/x"], "--out"),
        (["export", "s3://b/x"], "RUN"),
        (["predict", "s3://b/x", "a.png"], "STUDENT"),
        (["report", "runs/a", "s3://b/x"], "RUNS"),
        (["--resume", "s3://b/x"], "--resume"),
    ],
)
def test_an_address_is_refused_as_one(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert f"{name} is 's3://b/x', an address" in capsys.readouterr().err
