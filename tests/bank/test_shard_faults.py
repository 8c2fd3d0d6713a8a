"""What goes wrong where banks in shards are built and read, and what is said of it."""

import os
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import pytest
import torch
from rich.console import Console

from tests.bank.test_shards import CONTRACT, build, check_complete, features, made
from tests.support.banked_runs import banked, counted
from tests.support.processes import Fresh, until
from understudy.bank import Shards, local_folder, open_bank
from understudy.bank._store import Store
from understudy.config.recipe import Recipe
from understudy.errors import BankError, RecipeError
from understudy.experiment import bank_attach, bank_build, bank_plan, bank_shards
from understudy.experiment.bank_shards import fill_shards
from understudy.reporting.tables import plan_table


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def test_a_recipe_without_a_bank_makes_none_in_the_working_directory(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="names no bank"):
        fill_shards(tiny)
    assert not list(tmp_path.iterdir())


def test_a_plan_compares_a_bank_at_an_address_with_no_disk(tiny: Recipe, tmp_path: Path) -> None:
    remote, local = Recipe.load(tiny, {"bank.path": "memory://plan"}), banked(tiny, tmp_path)
    plans = [bank_plan.plan(recipe) for recipe in (remote, local)]
    assert [plan.kept_in for plan in plans] == [local_folder("memory://plan"), None]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(plan_table(plans[0]))
    assert "which keeps the shards that are read" in capture.get()
    assert "a complete bank" not in capture.get()


def test_an_object_that_cannot_be_written_is_explained_once(tmp_path: Path) -> None:
    (tmp_path / "bank").write_bytes(b"a file where the folder would be")
    with pytest.raises(BankError) as caught:
        Store(str(tmp_path / "bank")).publish("manifest.json", b"{}")
    assert str(caught.value).endswith("Choose another bank.path.")
    assert "RunError" not in str(caught.value)


def test_a_bank_that_is_deleted_while_it_is_built_is_refused(tmp_path: Path) -> None:
    bank = made(str(tmp_path / "bank"))
    rmtree(tmp_path / "bank")
    shard = bank.division.shards(CONTRACT)[0]
    with pytest.raises(BankError, match=r"cannot be written to .*/bank \(No such file.*bank\.path"):
        bank.publish(shard, [features(torch.arange(5), shard.view)])


def test_a_cache_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "file"))
    build("memory://kept")
    with pytest.raises(BankError, match=r"cannot be kept in .*another folder by UNDERSTUDY_CACHE"):
        check_complete("memory://kept")


def test_a_full_cache_is_not_blamed_on_the_bank(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(small_disk))
    build("memory://full")
    open_bank("memory://full", CONTRACT).read(torch.tensor([0]), torch.tensor([0]))
    with (small_disk / "other").open("wb", buffering=0) as other, suppress(OSError):
        while other.write(bytes(4096)):
            pass
    with pytest.raises(BankError, match=r"kept in .*No space left.*by UNDERSTUDY_CACHE"):
        check_complete("memory://full")


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"cannot be listed \(OSError: .*too long"):
        Store(str(tmp_path / ("long" * 100))).names("complete")
    assert Store(str(tmp_path / "none")).names("complete") == []


FETCH = """
import sys, time
from pathlib import Path
from tests.bank import test_shards as own
download = own.Store.download
def stopping(store, name, file):
    download(store, name, file)
    Path(sys.argv[2]).touch()
    time.sleep(600)
own.Store.download = stopping
own.build(sys.argv[1])
own.check_complete(sys.argv[1])
"""


def test_a_download_that_was_killed_leaves_nothing_for_ever(tmp_path: Path) -> None:
    stop, place = tmp_path / "stop", "memory://killed"
    killed = Fresh("-c", FETCH, place, str(stop))
    until(stop.exists, killed)
    killed.kill()
    folder = local_folder(place) / "records"
    (left,) = (path for path in folder.iterdir() if path.name != ".lock")
    os.utime(left, (0, 0))
    build(place)
    check_complete(place)
    assert len(list(folder.iterdir())) == 15 + 1  # and the lock


def test_records_are_on_the_disk_before_their_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []
    sync = os.fsync

    def spy(file: int) -> None:
        status = os.fstat(file)
        synced.append((status.st_ino, status.st_size))
        sync(file)

    bank = made(str(tmp_path))
    shard = bank.division.shards(CONTRACT)[0]
    monkeypatch.setattr(os, "fsync", spy)
    bank.publish(shard, [features(torch.arange(5), shard.view)])
    order = [next((tmp_path / folder).iterdir()).stat() for folder in ("records", "complete")]
    assert synced == [(status.st_ino, status.st_size) for status in order]


def test_what_is_complete_is_listed_twice_whatever_the_number_of_shards(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[str] = []
    names = Store.names

    def spy(store: Store, folder: str) -> list[str]:
        listings.append(folder)
        return names(store, folder)

    monkeypatch.setattr(Store, "names", spy)
    recipe = banked(tiny, tmp_path / "bank", **{"data.augment": "none"})
    assert fill_shards(recipe, images=20).built == 10
    assert listings == ["complete"] * 2


def test_a_shard_that_another_process_has_built_meanwhile_is_not_built_again(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_shards, "_LISTING_HOLDS", -1.0)
    recipe = banked(tiny, tmp_path / "bank", **{"data.augment": "none"})
    with counted(monkeypatch) as seen:
        fill_shards(recipe, images=50, begin=lambda line: other(recipe))
    assert seen == [50] * 4


def other(recipe: Recipe) -> None:
    """What another process builds."""
    fill_shards(recipe, (2, 2))


@pytest.mark.parametrize("count", [0, 1, 200])
def test_records_are_found_in_their_shards_in_any_order(tmp_path: Path, count: int) -> None:
    build(str(tmp_path))
    bank = open_bank(str(tmp_path), CONTRACT)
    draw = torch.Generator().manual_seed(count)
    index = torch.randint(22, (count,), generator=draw)
    number = torch.randint(3, (count,), generator=draw)
    read = bank.read(index, number)
    for view in range(3):
        mine = number == view
        for name, x in features(index[mine], view).items():
            assert torch.allclose(read[name][mine].flatten(1), x, atol=0.5 / 127 + 1e-6)


def test_a_batch_is_looked_up_in_shards_once(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = banked(tiny, tmp_path / "bank", **{"data.augment": "none"})
    fill_shards(recipe, images=50)
    experiment, teacher = bank_build.built(recipe, "cpu", None)
    replay = bank_attach.open_replay(experiment, teacher, recipe)
    batch = next(iter(experiment.train.single_pass(augmented=False)))
    looked_up: list[int] = []
    has = Shards.has

    def spy(bank: Shards, index: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        looked_up.append(len(index))
        return has(bank, index, number)

    monkeypatch.setattr(Shards, "has", spy)
    assert len(replay(batch)["logits"]) == len(batch)
    assert looked_up == [len(batch)]


def test_a_part_that_does_not_fit_is_refused_before_it_begins(
    tiny: Recipe, small_disk: Path
) -> None:
    with pytest.raises(BankError, match=r"The rest of this part needs .* set bank\.dtype"):
        fill_shards(banked(tiny, small_disk / "bank"))
    assert not (small_disk / "bank" / "records").exists()


def test_the_cache_of_a_bank_lies_with_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UNDERSTUDY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert local_folder("s3://bucket/bank").is_relative_to(tmp_path / "understudy" / "bank")
