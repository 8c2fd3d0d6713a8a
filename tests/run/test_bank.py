"""A bank replays the teacher: the same student to the bit, and no teacher's forward pass."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import CNN, outcome

from understudy import filling, recipe
from understudy.bank import Bank, Contract
from understudy.distiller import Teacher
from understudy.errors import BankError, RecipeError
from understudy.recipe import Recipe
from understudy.run import train


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images each forward pass of the teacher saw."""
    seen: list[int] = []
    forward = Teacher.forward

    def spy(self: Teacher, images: Any) -> Any:
        seen.append(len(images))
        return forward(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "forward", spy)
        yield seen


def banked(tiny: Recipe, path: Path, **changes: Any) -> Recipe:
    return recipe.parse(recipe.plain(tiny), {"bank.path": str(path), **changes})


def test_the_student_is_the_same_to_the_bit_with_and_without_a_bank(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = train(tiny, out=tmp_path / "online")
    # Filled in another order and batch size, by another student with another seed.
    other = {"seed": 5, "data.seed": 0, "training.batch": 50}
    train(banked(tiny, tmp_path / "bank", **other), out=tmp_path / "other")
    first = train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    with counted(monkeypatch) as seen:
        second = train(banked(tiny, tmp_path / "bank"), out=tmp_path / "second")
    assert seen == []
    assert outcome(first) == outcome(online)
    assert outcome(second) == outcome(online)


def test_an_fp16_bank_is_close(tiny: Recipe, tmp_path: Path) -> None:
    online = train(tiny, out=tmp_path / "online")
    halved = train(
        banked(tiny, tmp_path / "bank", **{"bank.dtype": "fp16"}), out=tmp_path / "halved"
    )
    for exact, near in zip(online.epochs(), halved.epochs(), strict=True):
        assert near["losses"] == pytest.approx(exact["losses"], rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bank.dtype": "fp16"}, "another dtype: fp32 there, fp16 here"),
        ({"data.augment": "flip"}, "another transform"),
        ({"data.images": 100}, "another images"),
        ({"training.precision": "bf16"}, "another precision: fp32 there, bfloat16 here"),
        ({"teacher.size": 24}, "another input"),
    ],
)
def test_a_bank_of_something_else_is_refused(
    tiny: Recipe, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    with pytest.raises(BankError, match=words):
        train(banked(tiny, tmp_path / "bank", **changes), out=tmp_path / "second")


def test_a_flipped_byte_is_noticed(tiny: Recipe, tmp_path: Path) -> None:
    train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    records = np.memmap(tmp_path / "bank" / "records.bin", dtype=np.uint8, mode="r+")
    places = np.flatnonzero(records)
    records[places[len(places) // 2]] ^= 1
    records.flush()
    with pytest.raises(BankError, match=r"is damaged: view \d+ of image \d+"):
        train(banked(tiny, tmp_path / "bank"), out=tmp_path / "second")


def test_a_method_that_reads_more_than_is_stored_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", methods={"fitnet": {"feature": "stage2"}})
    with pytest.raises(RecipeError, match="'fitnet' reads stage2"):
        train(wanted, out=tmp_path / "run")
    stored = banked(wanted, tmp_path / "bank", **{"bank.features": ["stage2"]})
    train(stored, out=tmp_path / "stored")


def test_a_truncated_bank_is_refused(tmp_path: Path) -> None:
    contract = Contract("t", "i", "fp32", "x", "v", 5, 3, {"logits": (4,)})
    Bank(tmp_path, contract)
    with (tmp_path / "records.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(BankError, match="is damaged: it holds 6 of 15 records"):
        Bank(tmp_path, contract)


def test_plan_fill_and_verify(tiny: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip"})
    planned = filling.plan(wanted)
    assert not (tmp_path / "bank").exists()
    assert planned.contract.records == 200 * 2
    assert planned.contract.bytes == 400 * (4 * (32 + 10) + 4)
    told: list[tuple[int, int]] = []
    bank = filling.fill(wanted, watch=lambda *counts: told.append(counts))
    assert (bank.filled(), told[-1]) == (400, (400, 400))
    assert filling.verify(wanted).difference < 1e-5
    with counted(monkeypatch) as seen:
        banked_run = train(wanted, out=tmp_path / "banked")
    assert seen == []
    online = recipe.parse(recipe.plain(wanted), {"bank.path": ""})
    for exact, near in zip(
        train(online, out=tmp_path / "online").epochs(), banked_run.epochs(), strict=True
    ):
        # Filled in batches of another size than training's, which may round differently.
        assert near["losses"] == pytest.approx(exact["losses"], rel=1e-4)


def test_filling_goes_on_where_it_stopped(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip"})

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filling.fill(wanted, watch=stop)
    told: list[int] = []
    assert filling.fill(wanted, watch=lambda done, total: told.append(done)).filled() == 400
    assert told[0] == 400


def test_verify_notices_what_the_teacher_does_not_give(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "none"})
    with pytest.raises(BankError, match="is empty"):
        filling.verify(wanted)
    right = filling.fill(banked(wanted, tmp_path / "right"))
    index, number = torch.arange(200), torch.zeros(200, dtype=torch.int64)
    Bank(tmp_path / "bank", right.contract).write(index, number, right.read(index.flip(0), number))
    with pytest.raises(BankError, match="differs from what the teacher gives"):
        filling.verify(wanted)
    with pytest.raises(RecipeError, match="names no bank"):
        filling.verify(tiny)


def test_images_from_files_have_as_many_views_as_asked_for(
    tmp_path: Path, monkeypatch: Any
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    base = {
        "data": {"source": "folder", "root": str(tmp_path / "images"), "size": 32},
        "student": {"name": CNN},
        "training": {"epochs": 2, "batch": 8, "lr": 0.01, "schedule": "constant"},
    }
    teacher = train(recipe.parse(base, {"training.epochs": 1}), out=tmp_path / "teacher")
    changes = {
        "data.augment": "resized_crop",
        "teacher.weights": str(teacher.path),
        "methods": {"kd": {}},
    }
    wanted = recipe.parse(base, {**changes, "bank": {"path": str(tmp_path / "bank"), "views": 2}})
    online = train(recipe.parse(base, changes), out=tmp_path / "online")
    first = train(wanted, out=tmp_path / "first")
    with counted(monkeypatch) as seen:
        second = train(wanted, out=tmp_path / "second")
    assert seen == []
    assert outcome(first) == outcome(second) == outcome(online)


def test_killed_while_filling_it_goes_on_by_itself_or_with_another(
    tiny: Recipe, tmp_path: Path
) -> None:
    wanted = banked(tiny, tmp_path / "bank")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.dump(wanted))
    words = ["-m", "understudy", "bank", "build", str(path), "--device", "cpu"]
    killed = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    checks = tmp_path / "bank" / "checks.bin"
    until = time.monotonic() + 120
    while not (checks.is_file() and any(checks.read_bytes())):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "nothing was stored"
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [sys.executable, *launcher, *words], check=True, capture_output=True, timeout=300
    )
    assert filling.fill(wanted).filled() == 200 * 162
    assert filling.verify(wanted).difference < 1e-4


def test_a_full_disk_keeps_what_was_stored(tiny: Recipe, tmp_path: Path, small_disk: Path) -> None:
    wanted = banked(tiny, small_disk / "bank", methods={"kd": {}})
    with pytest.raises(BankError, match="The rest of the bank needs"):
        filling.fill(wanted)
    with pytest.raises(BankError, match=r"cannot be written \(No space left"):
        train(recipe.parse(recipe.plain(wanted), {"training.epochs": 30}), out=tmp_path / "run")
    left = filling.verify(wanted)
    assert left.records > 0
    assert left.difference < 1e-4


def test_a_bank_that_cannot_be_written_is_still_read(
    tiny: Recipe, tmp_path: Path, small_disk: Path
) -> None:
    wanted = banked(tiny, small_disk / "bank", **{"data.augment": "flip"})
    filling.fill(wanted)
    first = train(wanted, out=tmp_path / "first")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    second = train(wanted, out=tmp_path / "second")
    assert outcome(first) == outcome(second)


def test_a_damaged_manifest_is_named(tiny: Recipe, tmp_path: Path) -> None:
    train(banked(tiny, tmp_path / "bank"), out=tmp_path / "first")
    (tmp_path / "bank" / "manifest.json").write_text('{"teacher":')
    with pytest.raises(BankError, match=r"manifest.json is damaged"):
        train(banked(tiny, tmp_path / "bank"), out=tmp_path / "second")
