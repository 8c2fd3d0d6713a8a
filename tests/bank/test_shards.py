"""Banks in shards: built by several processes without a lock, and equal to one that one built."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from random import Random
from typing import Any

import fsspec
import pytest
import torch
from torch import Tensor

from tests.support.banked_runs import banked, counted
from tests.support.processes import Fresh, until
from understudy.bank import Contract, Shards, make_shards, missing, open_bank, share
from understudy.bank._store import Store, local_folder
from understudy.bank.replay import Replay
from understudy.config.recipe import Recipe
from understudy.errors import BankError, RecipeError
from understudy.experiment import bank_build
from understudy.experiment.bank_parts import parts_of
from understudy.experiment.bank_shards import fill_shards
from understudy.experiment.train import train
from understudy.features import Features

CONTRACT = Contract("t", "i", "fp32", "x", "v", 22, 3, {"map": (2, 3, 3), "logits": (4,)}, "int8")
IMAGES = torch.arange(22)
STOP = "UNDERSTUDY_TEST_STOP"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def features(index: Tensor, view: int) -> Features:
    """What an imagined teacher gives: a function of image and view."""
    numbers = (100 * view + index + 1).float()
    return {
        name: torch.cos(numbers[:, None] * torch.arange(1, 1 + torch.Size(shape).numel()))
        for name, shape in CONTRACT.features.items()
    }


def made(place: str, contract: Contract = CONTRACT) -> Shards:
    return make_shards(place, contract, few_views=False, images=5)


def build(place: str, part: tuple[int, int] = (1, 1), contract: Contract = CONTRACT) -> None:
    """Build one part, as `bank build --shards` does, with an imagined teacher."""
    bank = made(place, contract)
    for shard in missing(bank, share(bank.division.shards(bank.contract), part)):
        index = torch.arange(shard.image, shard.image + shard.images)
        bank.publish(shard, [features(index, shard.view)])


def content(place: str) -> dict[str, bytes | None]:
    """Name → content of every object of a bank."""
    store = Store(place)
    names = ["manifest.json"]
    names += [f"{folder}/{x}" for folder in ("records", "complete") for x in store.names(folder)]
    return {name: store.read(name) for name in names}


def check_complete(place: str) -> None:
    bank = open_bank(place, CONTRACT)
    assert bank.filled() == CONTRACT.records
    for view in range(CONTRACT.num_views):
        order = torch.randperm(22)
        read = bank.read(order, torch.full_like(order, view))
        for name, x in features(order, view).items():
            assert (read[name].flatten(1) - x).abs().max() <= 0.5 / 127 + 1e-6


def test_three_parts_in_memory_of_which_one_is_stopped_equal_one(tmp_path: Path) -> None:
    build(str(tmp_path / "one"))
    place = "memory://three"
    published = Shards.publish

    def stopping(bank: Shards, shard: Any, batches: Any) -> None:
        if shard.image == 10:  # the first shard of the second part: no marker is written
            bank.store.publish("records/half.bin", b"half")
            raise KeyboardInterrupt
        published(bank, shard, batches)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as threads:
        patch.setattr(Shards, "publish", stopping)
        parts = [threads.submit(build, place, (i, 3)) for i in (1, 2, 3)]
        assert [type(part.exception()) for part in parts] == [
            type(None),
            KeyboardInterrupt,
            type(None),
        ]
    bank = open_bank(place, CONTRACT)
    assert (bank.filled(), CONTRACT.records) == (66 - 4 * 5, 66)
    build(place, (2, 3))
    three = content(place)
    assert three.pop("records/half.bin") == b"half"
    assert three == content(str(tmp_path / "one"))
    check_complete(place)


SCRIPT = """
import os, sys, time
from pathlib import Path
from tests.bank import test_shards as own
from understudy.bank import Shards
place, part, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
upload = own.Store.upload
def waiting(store, file, name):
    upload(store, file, name)
    Path(stop).touch()
    time.sleep(600)
if stop:
    own.Store.upload = waiting
own.build(place, (part, 3))
"""


def three_processes(place: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """Build a bank by three processes; one is killed between its records and their marker."""
    stop = tmp_path / "stop"

    def start(part: int, stop: str = "") -> Fresh:
        return Fresh("-c", SCRIPT, place, str(part), stop, environment=environment)

    killed, others = start(2, str(stop)), [start(1), start(3)]
    until(stop.exists, killed)
    killed.kill()
    for process in others:
        process.finish()
    assert len(missing(made(place), made(place).division.shards(CONTRACT))) == 5
    start(2).finish()
    build(str(tmp_path / "one"))
    assert content(place) == content(str(tmp_path / "one"))
    check_complete(place)


def test_three_processes_of_which_one_is_killed_equal_one(tmp_path: Path) -> None:
    place = tmp_path / "three"
    three_processes(str(place), tmp_path, {})
    assert not list((tmp_path / "one").glob(".shard-*"))
    left = next(place.glob(".shard-*"))  # of the process that was killed
    os.utime(left, (0, 0))
    made(str(place))
    assert not left.exists()


def test_the_same_through_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (find_spec("s3fs") and find_spec("moto") and find_spec("flask")):
        pytest.skip("needs s3fs and moto[server]")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "a",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(BankError, match=r"s3://bucket/bank cannot be written.*bucket"):
            made("s3://bucket/bank")  # no bucket is made for a mistyped name
        fsspec.filesystem("s3").mkdir("bucket")
        three_processes("s3://bucket/bank", tmp_path, environment)
    finally:
        server.stop()


THOUSAND = Contract("t", "i", "fp32", "x", "v", 2000, 1, {"logits": (2,)}, "fp16")


def build_thousand(place: str, part: tuple[int, int], dies_after: int | None = None) -> None:
    """Build a part of a thousand shards in an order of its own; die between records and marker."""
    bank = make_shards(place, THOUSAND, few_views=False, images=2)
    shards = missing(bank, share(bank.division.shards(THOUSAND), part))
    Random(part[0]).shuffle(shards)
    for count, shard in enumerate(shards):
        if count == dies_after:
            bank.store.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        x = torch.arange(shard.image, shard.image + 2).float()
        bank.publish(shard, [{"logits": torch.stack([x, -x], 1)}])


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="needs fork")
def test_a_thousand_shards_by_processes_of_which_some_are_killed_equal_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Processes die here, not the machine: nothing has to reach the disk.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    one, many, fork = str(tmp_path / "one"), str(tmp_path / "many"), get_context("fork")

    def run(parts: list[tuple[tuple[int, int], int | None]]) -> list[int | None]:
        processes = [fork.Process(target=build_thousand, args=(many, *part)) for part in parts]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        return [process.exitcode for process in processes]

    codes = run([((5, 7), None), ((2, 7), 40), ((7, 7), 0), ((1, 7), None), ((3, 7), 141)])
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0, -signal.SIGKILL]
    bank = open_bank(many, THOUSAND)
    assert isinstance(bank, Shards)
    assert 0 < len(missing(bank, bank.division.shards(THOUSAND))) < 1000
    # What is left, in another number of parts.
    assert run([((i, 3), None) for i in (2, 3, 1)]) == [0, 0, 0]
    build_thousand(one, (1, 1))
    assert len(content(one)) == 1 + 2 * 1000
    left, right = content(one), content(many)
    # Records of the killed processes without a marker are the same files again.
    assert left == right
    index = torch.randperm(2000)[:40]
    read = open_bank(many, THOUSAND).read(index, 0 * index)["logits"]
    assert torch.equal(read[:, 0], index.float())


def test_a_remote_shard_is_fetched_once_and_checked(tmp_path: Path) -> None:
    place = "memory://checked"
    build(place)
    check_complete(place)
    store, folder = Store(place), local_folder(place)
    assert len(list((folder / "records").glob("v*.bin"))) == 15
    names = store.names("records")
    for name in names:
        store.publish(f"records/{name}", b"other")
    check_complete(place)  # from the cache
    (folder / "records" / names[0]).unlink()
    with pytest.raises(BankError, match="is not what was written there"):
        check_complete(place)


def test_a_damaged_shard_is_refused_and_built_again(tmp_path: Path) -> None:
    place = tmp_path / "bank"
    build(str(place))
    file = sorted((place / "records").iterdir())[0]
    damaged = bytearray(file.read_bytes())
    damaged[3] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(BankError, match=r"flipped bit.*: delete .*\.bin and .*\.json, and build"):
        check_complete(str(place))
    file.unlink()
    (place / "complete" / f"{file.stem}.json").unlink()
    build(str(place))
    check_complete(str(place))


def test_it_grows_by_views(tmp_path: Path) -> None:
    place = str(tmp_path)
    build(place, contract=replace(CONTRACT, num_views=1))
    before = content(place)
    build(place)
    assert before.items() <= content(place).items()
    assert open_bank(place, replace(CONTRACT, num_views=1)).contract.num_views == 3


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda place: made(place, replace(CONTRACT, teacher="u")), "another teacher: t there"),
        (lambda place: make_shards(place, CONTRACT, few_views=False, images=6), "another division"),
        (lambda place: open_bank(place + "x", CONTRACT), "There is no bank in memory://"),
        (lambda _: open_bank("nosuch://b/x", CONTRACT), "an address that fsspec does not know"),
    ],
)
def test_what_does_not_fit_is_refused(ask: Any, sentence: str) -> None:
    made("memory://refused")
    with pytest.raises(BankError, match=sentence):
        ask("memory://refused")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(BankError, match=r"package that is missing.*`pip install .fsspec"):
        open_bank("s3://b/x", CONTRACT)


def test_training_reads_shards_and_needs_no_teacher(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = banked(tiny, tmp_path / "table", **{"data.augment": "flip"})
    sharded = Recipe.load(wanted, {"bank.path": "memory://run"})
    lines: list[str] = []
    built = [fill_shards(sharded, (i, 2), images=64, begin=lines.append) for i in (2, 1)]
    assert [(x.built, x.complete, x.total) for x in built] == [(2, 2, 4), (2, 4, 4)]
    assert "64 images × 2 views" in lines[0]
    assert "2 in this part, of which 0 are complete already" in lines[0]
    assert bank_build.verify(sharded).difference < 1e-5
    with counted(monkeypatch) as seen:
        read = train(sharded, out=tmp_path / "read")
    assert seen == [100]  # the test images, whose outputs are kept in the cache
    bank_build.fill(wanted)
    # The table is filled in other batches, which may round differently.
    for exact, near in zip(train(wanted, out=tmp_path / "run").history, read.history, strict=True):
        assert near["losses"] == pytest.approx(exact["losses"], rel=1e-4)
    with pytest.raises(RecipeError, match="to which training adds nothing"):
        train(Recipe.load(sharded, {"bank.codes": True}), out=tmp_path / "codes")


def test_a_mirrored_view_is_a_view_of_its_own(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(
        tiny,
        tmp_path / "bank",
        **{"data.augment": "flip", "bank.features": ["stage2"], "bank.dtype": "int8"},
        methods={"fitnet": {"feature": "stage2"}},
    )
    (bank,) = fill_shards(wanted).banks
    experiment, teacher = bank_build.built(wanted, "cpu", None)
    index = torch.arange(64)
    plain, mirrored = (bank.read(index, torch.full_like(index, x))["stage2"] for x in (0, 1))
    images = [experiment.train.views.show(index, torch.full_like(index, x)) for x in (0, 1)]
    assert torch.equal(images[0].flip(-1), images[1])
    (part,) = parts_of(Replay(teacher, bank, experiment.train.views), experiment.train)
    (fresh,) = (x["stage2"] for x in part.compute(part.batches(index, torch.ones_like(index))))
    similar = torch.nn.functional.cosine_similarity
    assert float(similar(mirrored.flatten(1), fresh.flatten(1)).min()) > 0.999
    # A map that is mirrored is not the map of the mirrored image.
    assert float(similar(plain.flip(-1).flatten(1), fresh.flatten(1)).mean()) < 0.99
