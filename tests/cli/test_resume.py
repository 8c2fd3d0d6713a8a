"""`--resume DIR` alone continues what the directory holds."""

import json
import re
import signal
from pathlib import Path

import pytest

import understudy
from tests.support.small_runs import Stop, outcome
from understudy.cli.commands import main
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted
from understudy.experiment.run_directory import Run

SHORT = {"training.epochs": 1, "data.images": 64}


def stopped(recipe: Recipe, folder: Path) -> None:
    """A run that a signal ended after its first step."""
    with pytest.raises(Interrupted):
        understudy.distill(
            recipe, SHORT, out=folder, device="cpu", callback=Stop(1, signal.SIGTERM)
        )


@pytest.mark.parametrize("words", [["--resume"], ["distill", "--resume"]], ids=["alone", "distill"])
def test_a_run(tiny: Recipe, tmp_path: Path, words: list[str]) -> None:
    stopped(tiny, tmp_path)
    main([*words, str(tmp_path), "--trust", "true", "--device", "cpu"])
    assert Run(tmp_path).finished


def test_a_comparison(tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        understudy.compare(
            tiny,
            SHORT,
            methods=["kd"],
            seeds=[4],
            out=tmp_path,
            device="cpu",
            callback=Stop(1, signal.SIGTERM),
        )
    main(["--resume", str(tmp_path), "--trust", "true", "--device", "cpu", "--jobs", "1"])
    assert outcome(Run(tmp_path / "kd" / "seed4"))
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert [arm["seeds"] for arm in written["arms"]] == [[4], [4]]
    assert len(re.findall(r"seed 4 +\[\d/2\]", capsys.readouterr().out)) == 2


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    with pytest.raises(SystemExit):
        main([str(word) for word in words])
    return capsys.readouterr().err


def test_another_command_names_the_right_one(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(tiny.to_yaml())
    message = refusal(capsys, "train", "--resume", folder)
    assert f"`understudy distill`: continue it by `understudy --resume {folder}`" in message
    assert "leave --out away" in refusal(capsys, "distill", "--resume", folder, "--out", "x")
    (folder / "call.json").write_text('{"function": "compare", "arguments": {}}')
    assert "with which recipe `compare` was called" in refusal(capsys, "--resume", folder)
    assert f"name one of {folder}" in refusal(capsys, "--resume", tmp_path)


def test_of_what_a_folder_holds_the_unfinished_is_named_first(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, files in {"a_finished": ("evaluation.json",), "b_stopped": ()}.items():
        (tmp_path / name).mkdir()
        for file in ("environment.json", *files):
            (tmp_path / name / file).write_text("{}")
        (tmp_path / name / "recipe.yaml").write_text(tiny.to_yaml())
    named = f"name one of {tmp_path / 'b_stopped'}, {tmp_path / 'a_finished'}."
    assert named in refusal(capsys, "--resume", tmp_path)


def test_what_was_begun_by_an_earlier_version_is_continued_by_its_command(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "kd" / "seed0"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(tiny.to_yaml())
    assert "give that command again" in refusal(capsys, "--resume", tmp_path)


def test_a_recipe_may_stand_behind_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(capsys, "train", "--resume", "fashion/teacher", "--out", tmp_path / "x")
    assert "There is no run in" in message


def test_a_directory_of_another_run_says_what_to_do(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(tiny.to_yaml())
    again = refusal(capsys, "distill", recipe, "--out", tmp_path / "run")
    assert f"stopped after epoch 0: continue with `understudy --resume {tmp_path}/run`" in again
    other = refusal(capsys, "distill", recipe, "--seed", "7", "--out", tmp_path / "run")
    assert f"(seed: 0 there, 7 here); choose another --out, such as --out {tmp_path}/run_2" in other
