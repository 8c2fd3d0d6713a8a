"""The table on disk: its places, how it grows, and what several processes do to it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.processes import Fresh
from understudy.bank import Contract, Table
from understudy.errors import BankError

CONTRACT = Contract("t", "i", "fp32", "x", "v", 5, 3, {"penultimate": (3, 2), "logits": (4,)})
IMAGES = torch.arange(5)


def features(view: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(view)
    shapes = CONTRACT.features.items()
    return {name: scale * torch.randn(5, *shape, generator=generator) for name, shape in shapes}


def store(bank: Table, view: int, scale: float = 1.0) -> None:
    bank.write(IMAGES, torch.full((5,), view), features(view, scale))


def holds(bank: Table, view: int) -> bool:
    """Whether a view of all images is there, as it was stored."""
    number = torch.full((5,), view)
    if not bank.has(IMAGES, number).all():
        return False
    stored = bank.read(IMAGES.flip(0), number)
    return all(torch.equal(stored[name].flip(0), x) for name, x in features(view).items())


def test_what_was_stored_is_read_in_any_order(tmp_path: Path) -> None:
    bank = Table(tmp_path, CONTRACT)
    assert bank.filled() == 0
    for view in (2, 0):
        store(bank, view)
    assert [holds(bank, view) for view in range(3)] == [True, False, True]
    assert bank.filled() == 10
    index, number = torch.tensor([4, 0, 4]), torch.tensor([0, 2, 2])
    read = bank.read(index, number)["logits"]
    expected = [features(0)["logits"][4], features(2)["logits"][0], features(2)["logits"][4]]
    assert torch.equal(read, torch.stack(expected))


def test_a_view_lies_in_one_piece(tmp_path: Path) -> None:
    bank = Table(tmp_path, CONTRACT)
    store(bank, 1)
    size = CONTRACT.record_bytes * 5
    content = (tmp_path / "records.bin").read_bytes()
    assert not any(content[:size])
    assert any(content[size : 2 * size])
    assert not any(content[2 * size :])


def test_the_files_take_the_bytes_of_the_contract(tmp_path: Path) -> None:
    Table(tmp_path, CONTRACT)
    sizes = [(tmp_path / name).stat().st_size for name in ("records.bin", "checks.bin")]
    assert sum(sizes) == CONTRACT.bytes == CONTRACT.bytes_after(3) == CONTRACT.bytes_after(9)
    assert CONTRACT.bytes_after(1) == replace(CONTRACT, num_views=1).bytes


def test_the_order_in_which_features_are_named_does_not_matter(tmp_path: Path) -> None:
    store(Table(tmp_path, CONTRACT), 0)
    turned = dict(reversed(CONTRACT.features.items()))
    assert holds(Table(tmp_path, replace(CONTRACT, features=turned)), 0)


def test_an_empty_record_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="view 1 of image 0 is not what was stored"):
        Table(tmp_path, CONTRACT).read(IMAGES, torch.ones(5, dtype=torch.int64))


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_what_cannot_be_stored_is_refused(tmp_path: Path, dtype: str) -> None:
    bank = Table(tmp_path, replace(CONTRACT, dtype=dtype))  # type: ignore[arg-type]
    with pytest.raises(BankError, match=f"a NaN, or a number beyond {dtype}"):
        store(bank, 0, scale=torch.inf)
    assert bank.filled() == 0


def test_it_grows_while_another_reads_and_writes(tmp_path: Path) -> None:
    small = Table(tmp_path, replace(CONTRACT, num_views=1))
    store(small, 0)
    large = Table(tmp_path, CONTRACT)
    store(large, 2)
    assert holds(small, 0)
    assert (holds(large, 0), holds(large, 1), holds(large, 2)) == (True, False, True)
    again = Table(tmp_path, replace(CONTRACT, num_views=2))
    assert again.contract.num_views == 3
    assert holds(again, 2)


def test_a_growth_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    store(Table(tmp_path, replace(CONTRACT, num_views=1)), 0)
    before = (tmp_path / "manifest.json").read_text()
    store(Table(tmp_path, replace(CONTRACT, num_views=2)), 1)
    # As if it had been killed before the manifest: the files are longer than it says.
    (tmp_path / "manifest.json").write_text(before)
    assert holds(Table(tmp_path, replace(CONTRACT, num_views=1)), 0)
    grown = Table(tmp_path, CONTRACT)
    assert holds(grown, 0)
    assert json.loads((tmp_path / "manifest.json").read_text())["num_views"] == 3


def test_a_creation_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "records.bin").write_bytes(bytes(7))
    store(Table(tmp_path, CONTRACT), 1)
    assert holds(Table(tmp_path, CONTRACT), 1)


def test_of_two_records_of_one_view_the_first_stays(tmp_path: Path) -> None:
    one, other = Table(tmp_path, CONTRACT), Table(tmp_path, CONTRACT)
    store(one, 0)
    store(other, 0, scale=2.0)
    assert holds(one, 0)
    assert holds(other, 0)


def test_processes_make_grow_and_fill_one_bank_at_once(tmp_path: Path) -> None:
    script = f"""
from tests.bank.test_table import *
for views in range(1, 40):
    bank = Table(Path({str(tmp_path)!r}), replace(CONTRACT, num_views=views))
    store(bank, views - 1)
    assert holds(bank, views - 1)
"""
    for process in [Fresh("-c", script) for _ in range(3)]:
        process.finish()
    bank = Table(tmp_path, replace(CONTRACT, num_views=39))
    assert all(holds(bank, view) for view in range(39))


def test_every_flipped_bit_of_a_record_is_noticed(tmp_path: Path) -> None:
    store(Table(tmp_path, CONTRACT), 0)
    file = tmp_path / "records.bin"
    content = file.read_bytes()
    for bit in range(8 * CONTRACT.record_bytes):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(BankError, match="view 0 of image 0"):
            Table(tmp_path, CONTRACT).read(IMAGES, torch.zeros(5, dtype=torch.int64))


def test_an_old_bank_keeps_one_scale_for_each_record(tmp_path: Path) -> None:
    old = Contract("t", "i", "fp32", "x", "v", 4, 1, {"map": (3, 8, 8)}, "int8")
    new, index = replace(old, scales="channel"), torch.arange(4)
    maps = {"map": torch.randn(4, 3, 8, 8) * torch.tensor([1e-3, 1.0, 9.0]).view(3, 1, 1)}
    banks = [Table(tmp_path / "old", old), Table(tmp_path / "new", new)]
    for bank in banks:
        bank.write(index, 0 * index, maps)
    manifest = tmp_path / "old" / "manifest.json"
    stored = json.loads(manifest.read_text())
    del stored["scales"]  # as it was written before there was a choice
    manifest.write_text(json.dumps(stored))
    again = Table(tmp_path / "old", replace(new, num_views=2))
    assert again.contract.scales == "row"
    assert torch.equal(again.read(index, 0 * index)["map"], banks[0].read(index, 0 * index)["map"])
    assert Table(tmp_path / "old", new).contract.num_views == 2
    errors = [
        float((bank.read(index, 0 * index)["map"] - maps["map"])[:, 0].norm()) for bank in banks
    ]
    assert errors[1] < 0.01 * errors[0]
    stored["scales"] = "pixel"
    manifest.write_text(json.dumps(stored))
    with pytest.raises(BankError, match="each 'pixel', which this version does not know"):
        Table(tmp_path / "old", new)
