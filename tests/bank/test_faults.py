"""Whatever happens to a bank ends in one sentence, and nothing that was stored is lost."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.banked_runs import banked, folder_of_images
from tests.support.processes import Fresh, command_line, ranks, until
from tests.support.small_runs import CNN, outcome
from understudy.bank import Contract, Table
from understudy.config.recipe import Recipe
from understudy.errors import BankError
from understudy.experiment import bank_build
from understudy.experiment.train import train


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bank.dtype": "fp16"}, "another dtype: fp32 there, fp16 here"),
        ({"data.augment": "flip"}, "another transform"),
        ({"data.images": 100}, "another images"),
        ({"training.precision": "bf16"}, "another precision: fp32 there, bfloat16 here"),
        ({"teacher.size": 24}, "another input"),
        ({"bank.top_logits": 3}, "another number of logits: None there, 3 here"),
        ({"bank.features": ["penultimate", "logits", "stage2"]}, "another features"),
    ],
)
def test_a_bank_of_something_else_is_refused(
    tiny: Recipe, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    with pytest.raises(BankError, match=words):
        train(banked(tiny, tmp_path / "bank", **changes), out=tmp_path / "second")


def test_a_flipped_byte_is_noticed_and_mended(
    tiny: Recipe, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    whole = train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    records = np.memmap(tmp_path / "bank" / "records.bin", dtype=np.uint8, mode="r+")
    places = np.flatnonzero(records)
    right = records.copy()
    records[places[len(places) // 2]] ^= 1
    records.flush()
    again = train(banked(tiny, tmp_path / "bank"), out=tmp_path / "second")
    assert re.search(r"view \d+ of image \d+ is not what was stored; the teacher", log.text)
    assert outcome(again) == outcome(whole)
    assert (records == right).all()


def test_a_truncated_bank_is_refused(tmp_path: Path) -> None:
    contract = Contract("t", "i", "fp32", "x", "v", 5, 3, {"logits": (4,)})
    Table(tmp_path, contract)
    with (tmp_path / "records.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(BankError, match="is damaged: it holds 6 of 15 records"):
        Table(tmp_path, contract)


def test_a_bank_of_another_teacher_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    alone = {"methods": {}, "teacher": "", "student.options": {"width": 16}, "training.epochs": 1}
    other = train(Recipe.load(tiny, alone), out=tmp_path / "other")
    changed = banked(tiny, tmp_path / "bank", **{"teacher.weights": str(other.path)})
    with pytest.raises(BankError, match=r"another teacher: \w+ there, \w+ here"):
        train(changed, out=tmp_path / "second")


def test_a_bank_of_files_is_refused_if_they_change(tiny: Recipe, tmp_path: Path) -> None:
    root = str(folder_of_images(tmp_path / "images"))
    data = {"source": "folder", "root": root, "size": 16, "images": None, "augment": "resized_crop"}
    shown = {"data": data, "training.batch": 8, "methods": {"kd": {}}}
    made = Recipe.load(tiny, {"student.name": CNN, **shown})
    alone = {"methods": {}, "teacher": "", "training.epochs": 1}
    teacher = train(Recipe.load(made, alone), out=tmp_path / "teacher")
    wanted = banked(made, tmp_path / "bank", **{"teacher.weights": str(teacher.path)})
    bank_build.fill(wanted)
    with pytest.raises(
        BankError, match=r"another transform: .*seed 0; .* there, .*seed 7; .* here"
    ):
        bank_build.fill(banked(wanted, tmp_path / "bank", **{"data.seed": 7}))
    (tmp_path / "images" / "train" / "cat" / "0.png").unlink()
    with pytest.raises(BankError, match="another images"):
        bank_build.fill(wanted)


def started(wanted: Recipe, path: Path, *words: str) -> Fresh:
    """A command on a recipe, in a process of its own."""
    path.write_text(wanted.to_yaml())
    command, *rest = words
    return command_line(*command.split(), path, "--device", "cpu", *rest)


def test_killed_while_filling_it_goes_on_by_itself_or_with_another(
    tiny: Recipe, tmp_path: Path
) -> None:
    wanted = banked(tiny, tmp_path / "bank")
    killed = started(wanted, tmp_path / "recipe.yaml", "bank build")
    checks = tmp_path / "bank" / "checks.bin"
    until(lambda: checks.is_file() and any(checks.read_bytes()), killed)
    killed.kill()
    words = ["-m", "understudy", "bank", "build", tmp_path / "recipe.yaml", "--device", "cpu"]
    for process in ranks(2, *words):
        process.finish()
    assert bank_build.fill(wanted).filled() == 200 * 162
    assert bank_build.verify(wanted).difference < 1e-4


def test_killed_while_reading_it_loses_nothing(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip", "training.epochs": 500})
    before = bank_build.fill(wanted).filled()
    content = (tmp_path / "bank" / "records.bin").read_bytes()
    out = tmp_path / "run"
    killed = started(wanted, tmp_path / "recipe.yaml", "distill", "--no-doctor", "--out", str(out))
    until((out / "last" / "previous.ckpt").is_file, killed)
    killed.kill()
    assert bank_build.fill(wanted).filled() == before
    assert (tmp_path / "bank" / "records.bin").read_bytes() == content


def test_a_full_disk_keeps_what_was_stored(tiny: Recipe, tmp_path: Path, small_disk: Path) -> None:
    wanted = banked(tiny, small_disk / "bank", methods={"kd": {}})
    with pytest.raises(BankError, match="The rest of the bank needs"):
        bank_build.fill(wanted)
    with pytest.raises(BankError, match=r"cannot be written \(No space left"):
        train(Recipe.load(wanted, {"training.epochs": 30}), out=tmp_path / "run")
    left = bank_build.verify(wanted)
    assert left.records > 0
    assert left.difference < 1e-4


def test_a_bank_that_cannot_be_written_is_still_read(
    tiny: Recipe, tmp_path: Path, small_disk: Path
) -> None:
    wanted = banked(tiny, small_disk / "bank", **{"data.augment": "flip"})
    same = banked(wanted, tmp_path / "bank")
    bank_build.fill(wanted)
    bank_build.fill(same)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert outcome(train(wanted, out=tmp_path / "first")) == outcome(
        train(same, out=tmp_path / "second")
    )


def test_a_bank_that_cannot_grow_says_so_and_is_still_read(small_disk: Path) -> None:
    contract = Contract("t", "i", "fp32", "x", "v", 5, 3, {"logits": (4,)})
    Table(small_disk / "bank", contract)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for wanted, place in ((replace(contract, num_views=4), "bank"), (contract, "new")):
        with pytest.raises(BankError, match=r"cannot be made or enlarged \(Read-only"):
            Table(small_disk / place, wanted)
    bank = Table(small_disk / "bank", contract)
    rows = torch.arange(5)
    with pytest.raises(BankError, match=r"cannot be written \(Read-only"):
        bank.write(rows, torch.zeros_like(rows), {"logits": torch.ones(5, 4)})
    assert bank.filled() == 0


def test_a_damaged_manifest_is_named(tiny: Recipe, tmp_path: Path) -> None:
    train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    (tmp_path / "bank" / "manifest.json").write_text('{"teacher":')
    with pytest.raises(BankError, match=r"manifest.json is damaged"):
        train(banked(tiny, tmp_path / "bank"), out=tmp_path / "second")
