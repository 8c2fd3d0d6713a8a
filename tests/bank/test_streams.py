"""Banks of images in tar and parquet files: built in parts, read in the order of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.bank.test_shards import content
from tests.support.banked_runs import banked, counted
from tests.support.plain_cnn import factory
from tests.support.processes import ranks
from tests.support.small_runs import CNN, Crash, outcome
from tests.support.small_shards import PER_SHARD, parquet_files, shards
from understudy.config.recipe import Recipe
from understudy.experiment import bank_build
from understudy.experiment.bank_shards import fill_shards
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

IMAGES = 22
WRITERS: dict[str, Callable[..., Path]] = {"webdataset": shards, "parquet": parquet_files}


@pytest.fixture(params=WRITERS)
def streamed(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A distillation on images in shards, with two stored views beside the clean one."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    save_file(factory(width=8, num_classes=2).state_dict(), tmp_path / "teacher.safetensors")
    root = WRITERS[request.param](tmp_path / "data", {"train": IMAGES, "test": 4})
    content: dict[str, Any] = {
        "name": "streamed",
        "trust": True,
        "data": {
            "source": request.param,
            "root": str(root),
            "shuffle_buffer": 8,
            "size": 32,
            "augment": "resized_crop",
            "seed": 0,
        },
        "student": {"name": CNN, "options": {"width": 4}},
        "teacher": {
            "name": CNN,
            "options": {"width": 8},
            "weights": str(tmp_path / "teacher.safetensors"),
        },
        "methods": {"kd": {}, "lshfm": {"hashes": 64}},
        "bank": {"views": 2},
        "training": {"epochs": 2, "batch": 6, "lr": 0.05, "checkpoint_minutes": 0.0},
    }
    return Recipe.from_dict(content)


def test_it_is_built_in_the_shards_of_the_data_and_replayed(
    streamed: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = train(streamed, out=tmp_path / "live")
    stored = banked(streamed, tmp_path / "bank")
    built = [fill_shards(stored, (i, 2), images=PER_SHARD) for i in (2, 1)]
    # Five shards of the data, each with the clean view and two others.
    assert [x.total for x in built] == [15, 15]
    assert built[1].complete == 15
    assert bank_build.verify(stored).difference < 1e-5
    with counted(monkeypatch) as seen:
        run = train(stored, out=tmp_path / "run")
    assert seen == [4], "the test images alone"
    for exact, near in zip(live.history, run.history, strict=True):
        assert near["losses"] == pytest.approx(exact["losses"], rel=1e-4)
    with counted(monkeypatch) as seen, pytest.raises(KeyboardInterrupt):
        train(stored, out=tmp_path / "killed", callback=Crash(2, 0))
    assert not Run(tmp_path / "killed").finished
    resumed = train(stored, out=tmp_path / "killed", resume=True)
    assert outcome(resumed) == outcome(run)


@pytest.mark.parametrize("streamed", ["webdataset"], indirect=True)
def test_two_ranks_build_the_same_bank_and_train_from_it(streamed: Recipe, tmp_path: Path) -> None:
    fill_shards(banked(streamed, tmp_path / "one"), images=PER_SHARD)
    path, place = tmp_path / "recipe.yaml", str(tmp_path / "two")
    path.write_text(banked(streamed, tmp_path / "two").to_yaml(), encoding="utf-8")
    flags = ["--shards", "1/1", "--shard-images", str(PER_SHARD), "--device", "cpu"]
    for process in ranks(2, "-m", "understudy", "bank", "build", path, *flags):
        process.finish()
    assert content(place) == content(str(tmp_path / "one"))
    command = ["-m", "understudy", "distill", path, "--out", tmp_path / "run", "--device", "cpu"]
    for process in ranks(2, *command):
        process.finish()
    alone = train(banked(streamed, tmp_path / "one"), out=tmp_path / "alone", device="cpu")
    for one, two in zip(alone.history, Run(tmp_path / "run").history, strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
