"""Records that are not what was stored are noticed, whatever they hold, and filled again."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.banked_runs import banked
from tests.support.processes import Fresh
from tests.support.small_runs import outcome
from understudy.bank import Contract, RecordsDropped, Resident, Table
from understudy.bank._row_file import checksums
from understudy.config.recipe import Recipe
from understudy.errors import BankError
from understudy.experiment import bank_build, bank_plan
from understudy.experiment.bank_build import _difference
from understudy.experiment.train import train

CONTRACT = Contract("t", "i", "fp32", "x", "v", 5, 3, {"logits": (4,)})
IMAGES, FIRST = torch.arange(5), torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("stored", "difference"),
    [
        ([3.0, 4.0], 0.0),
        ([3.0, 4.5], 0.1),
        ([torch.nan, 4.0], torch.inf),
        ([torch.inf, 4.0], torch.inf),
        ([-torch.inf, 4.0], torch.inf),
        ([1e30, 4.0], 2e29),
        ([3e38, -3e38], 3e38 * 2**0.5 / 5),
        ([0.0, 0.0], 1.0),
    ],
)
@pytest.mark.parametrize("row", [0, 7])
def test_one_wrong_record_among_many_is_a_difference(
    stored: list[float], difference: float, row: int
) -> None:
    computed = torch.tensor([[3.0, 4.0]]).repeat(256, 1)
    kept = computed.clone()
    kept[row] = torch.tensor(stored)
    assert _difference(kept, computed) == pytest.approx(difference, rel=1e-6)


def test_what_the_teacher_gives_now_may_be_nan_too() -> None:
    right = torch.tensor([[3.0, 4.0]])
    assert _difference(right, torch.tensor([[3.0, torch.nan]])) == torch.inf
    assert _difference(right, torch.tensor([[0.0, 0.0]])) == torch.inf
    assert _difference(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("number", [np.nan, np.inf, 6e4])
def test_verify_notices_a_wrong_record_with_a_valid_checksum(
    tiny: Recipe, tmp_path: Path, dtype: str, number: float
) -> None:
    recipe = banked(tiny, tmp_path / "bank", **{"data.augment": "none", "bank.dtype": dtype})
    bank = bank_build.fill(recipe)
    rows = np.array([17])
    record = bank._records.read(rows)
    # The first number of the record; of int8, the scale of its row.
    record.view(np.float16 if dtype == "fp16" else np.float32)[0, 0] = number
    bank._records.write(rows, record)
    bank._checks.write(rows, checksums(record)[:, None])
    with pytest.raises(BankError, match=rf"differs from .* is allowed for {dtype}; delete it"):
        bank_build.verify(recipe)


def test_what_only_looks_at_a_bank_makes_and_enlarges_none(tiny: Recipe, tmp_path: Path) -> None:
    recipe = banked(tiny, tmp_path / "typo" / "bank")
    with pytest.raises(BankError, match=r"There is no bank in .*typo.*: check bank\.path"):
        bank_build.verify(recipe)
    bank_plan.plan(recipe)
    assert not list(tmp_path.iterdir())
    Table(tmp_path, replace(CONTRACT, num_views=1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert Table(tmp_path, CONTRACT, create=False).contract.num_views == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("torn", ["checks.bin", "records.bin"])
def test_a_torn_write_costs_its_records_alone(
    tiny: Recipe, tmp_path: Path, log: pytest.LogCaptureFixture, torn: str
) -> None:
    codes = {"bank.codes": True, "data.augment": "flip"}
    recipe = banked(tiny, tmp_path / "bank", **codes)
    whole = train(recipe, out=tmp_path / "first")
    files = sorted((tmp_path / "bank").rglob(torn))
    assert len(files) == 3, "of the bank, of the codes and of the test images"
    before = [file.read_bytes() for file in files]
    for file, content in zip(files, before, strict=True):
        stored = np.flatnonzero(np.frombuffer(content, np.uint8))
        cut = bytearray(content)
        for place in stored[:: max(1, len(stored) // 5)]:
            cut[place] = 0
        file.write_bytes(cut)
    again = train(recipe, out=tmp_path / "second")
    assert outcome(again) == outcome(whole)
    assert "is not what was stored" in log.text
    assert [file.read_bytes() for file in files] == before


def test_a_damaged_bank_that_is_read_only_is_refused(small_disk: Path) -> None:
    bank = Table(small_disk / "bank", CONTRACT)
    bank.write(IMAGES, FIRST, {"logits": torch.ones(5, 4)})
    bank._checks.write(np.array([2]), np.array([[7]], np.uint32))
    del bank
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(BankError, match=r"view 0 of image 2 is not .* the bank is read-only"):
        Table(small_disk / "bank", CONTRACT).read(IMAGES, FIRST)


def test_a_bank_with_a_torn_record_is_not_copied_to_a_device(tmp_path: Path) -> None:
    contract = replace(CONTRACT, num_views=1)
    bank = Table(tmp_path, contract)
    bank.write(IMAGES, FIRST, {"logits": torch.ones(5, 4)})
    Resident(bank, torch.device("cpu"))
    bank._checks.write(np.array([2]), np.array([[7]], np.uint32))
    with pytest.raises(RecordsDropped, match=r"view 0 of image 2 .*run the command again"):
        Resident(bank, torch.device("cpu"))
    assert bank.filled() == 4


FULL = """
import sys
from pathlib import Path
import torch
from tests.bank.test_damage import CONTRACT, FIRST, IMAGES
from dataclasses import replace
from understudy.bank import Table
from understudy.errors import BankError, UnderstudyError
disk = Path(sys.argv[1])
wide = replace(CONTRACT, num_images=2000, features={"logits": (50,)})
bank = Table(disk / "bank", wide)
try:
    (disk / "ballast").write_bytes(bytes(10**6))
except OSError:
    pass
assert bank.filled() == 0
index = torch.arange(2000)
assert not bank.has(index, torch.ones_like(index)).any()
for ask in (bank.read, lambda i, n: bank.write(i, n, {"logits": torch.ones(len(i), 50)})):
    try:
        ask(index, torch.ones_like(index))
        raise AssertionError
    except BankError as error:
        print(error)
"""


def test_a_full_disk_in_memory_ends_in_a_sentence(small_disk: Path) -> None:
    said = Fresh("-c", FULL, small_disk).finish()
    assert "view 1 of image 0 is not what was stored" in said
    assert "cannot be written (No space left on device); what it holds is intact" in said


def test_a_bank_that_was_deleted_meanwhile_is_missed(tmp_path: Path) -> None:
    bank = Table(tmp_path / "bank", CONTRACT)
    (tmp_path / "bank").rename(tmp_path / "elsewhere")
    with pytest.raises(BankError, match=r"cannot be written \(No such file or directory\)"):
        bank.write(IMAGES, FIRST, {"logits": torch.ones(5, 4)})
