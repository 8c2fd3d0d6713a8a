"""A bank of a detector's maps: its backbone runs once for every view of an image."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.banked_runs import banked
from tests.support.small_runs import Stop, outcome
from tests.support.small_scenes import Scenes
from understudy.bank.map_replay import MapReplay
from understudy.batch import Batch
from understudy.checks import costs
from understudy.checks.examined import Examined
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.data import CLEAN, ObjectViews
from understudy.distillation.teacher import Teacher
from understudy.errors import BankError, Interrupted, RecipeError
from understudy.experiment import bank_attach, bank_build, bank_plan, build
from understudy.experiment.bank_shards import fill_shards
from understudy.experiment.images import Images
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.features import Features
from understudy.functional import seeded
from understudy.models import detection
from understudy.models.detection import Detector

SMALL: dict[str, Any] = {"backbone": "timm:test_resnet", "min_size": 64, "max_size": 160}
OPTIONS: dict[str, dict[str, Any]] = {
    "fasterrcnn": SMALL | {"channels": 32, "box_batch_size_per_image": 16},
    "fcos": SMALL | {"channels": 32},
    "ssdlite": {"backbone": "timm:test_resnet", "size": 64, "extra": [32, 32]},
}
ROWS: dict[str, Any] = {"lshfm": {"hashes": 64}}
"""Reads rows at the student's places, and measures the teacher first."""
MAPS: dict[str, Any] = {"frs": {"stages": ["p3"]}}
ONE_SIZE = {"data.source": "drawn_shapes", "data.root": "4", "data.augment": "flip"}
SIZES = Images(Scenes(6, seed=0), Scenes(3, seed=1))


@pytest.fixture(scope="module")
def teach(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """Gives a distillation of a family from a teacher with random weights."""
    root = tmp_path_factory.mktemp("teachers")

    def taught(family: str, *, classes: int = 6, **changes: Any) -> Recipe:
        weights = root / f"{family}{classes}.safetensors"
        if not weights.exists():
            with seeded(1):
                made = detection.find(family, num_classes=classes, options=OPTIONS[family])
            save_file(made.module.state_dict(), weights)
        network = {"name": family, "options": OPTIONS[family]}
        recipe: dict[str, Any] = {
            "name": "boxes",
            "task": "detection",
            "student": network,
            "teacher": network | {"weights": str(weights)},
            "methods": ROWS | (MAPS if family != "ssdlite" else {}),
            "training": {"epochs": 2, "batch": 2, "lr": 0.01, "teacher_precision": "fp32"},
        }
        return Recipe.load(recipe, ONE_SIZE | changes)

    return taught


def losses(recipe: Recipe, images: Images | None = None) -> list[dict[str, torch.Tensor]]:
    """Losses of every batch of two epochs, with the student as it begins."""
    with seeded(0):
        made = build.experiment(recipe, images=images)
        bank_attach.attach(made, recipe)
        made.prepare()
        made.distiller.train()
        return [made.distiller(batch) for epoch in (0, 1) for [batch] in made.train.epoch(epoch)]


def difference(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> float:
    """Largest difference of a loss, as a share of it."""
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a]
    return max(((a - b).abs() / a.abs().clamp_min(1e-6)).item() for a, b in pairs)


@contextmanager
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Images of each pass through the teacher's backbone."""
    seen: list[int] = []
    compute = Detector.maps

    def spy(self: Detector, images: Any) -> Any:
        seen.append(len(images.sizes))
        return compute(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "maps", spy)
        yield seen


@pytest.mark.parametrize("family", OPTIONS)
def test_a_bank_gives_the_losses_of_the_live_teacher(
    teach: Callable[..., Recipe], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = teach(family)
    live, stored = losses(wanted), banked(wanted, tmp_path / "bank")
    with passes(monkeypatch) as seen:
        first = losses(stored)
    assert 1 + 4 <= sum(seen) <= 1 + 2 * 4, "padding, and each view once"
    with passes(monkeypatch) as seen:
        second = losses(stored)
    assert seen == []
    # Another batch of the same images may round differently.
    assert difference(live, first) < 1e-5
    assert difference(first, second) == 0


@pytest.mark.parametrize(("dtype", "least", "most"), [("fp16", 1e-8, 2e-3), ("int8", 1e-5, 5e-2)])
def test_smaller_forms_are_close(
    teach: Callable[..., Recipe], dtype: str, least: float, most: float, tmp_path: Path
) -> None:
    wanted = teach("fasterrcnn")
    stored = losses(banked(wanted, tmp_path, **{"bank.dtype": dtype}))
    assert least < difference(losses(wanted), stored) < most


def test_a_run_that_was_stopped_goes_on_and_fills_the_bank(
    teach: Callable[..., Recipe], tmp_path: Path
) -> None:
    wanted = banked(teach("fasterrcnn", methods=ROWS), tmp_path / "bank")
    with pytest.raises(Interrupted):
        train(wanted, out=tmp_path / "cut", callback=Stop(1, signal.SIGTERM))
    resumed = train(wanted, out=tmp_path / "cut", resume=True)
    assert outcome(resumed) == outcome(train(wanted, out=tmp_path / "whole"))


def test_maps_of_a_teacher_in_bf16_are_stored_and_read(
    teach: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"training.teacher_precision": "bf16", "training.epochs": 1}
    wanted = banked(teach("fasterrcnn", methods=ROWS), tmp_path / "bank", **keys)
    first = train(wanted, out=tmp_path / "first")
    with passes(monkeypatch) as seen:
        second = train(wanted, out=tmp_path / "second")
    assert seen == []
    assert outcome(first) == outcome(second)


def test_built_ahead_in_a_table_and_in_shards(
    teach: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = banked(teach("fasterrcnn"), tmp_path / "table")
    planned = bank_plan.plan(wanted)
    assert (planned.records, planned.paddings, planned.contract.num_views) == (8, 1, 2)
    assert planned.record_bytes == 4 * 32 * (16**2 + 8**2 + 4**2 + 2**2 + 1)
    (note,) = costs._bank(Examined(wanted, device="cpu", seconds=60.0))
    assert f"{planned.record_bytes + 4:,} bytes for each view of an image" in note.message
    assert not (tmp_path / "table").exists()
    assert {"lshfm", "frs"} <= set(planned.serves)
    assert bank_build.fill(wanted).filled() == 8
    sharded, lines = banked(wanted, tmp_path / "shards"), list[str]()
    built = [fill_shards(sharded, (i, 2), images=3, begin=lines.append) for i in (2, 1)]
    assert [(x.built, x.complete, x.total) for x in built] == [(1, 1, 2), (1, 2, 2)]
    assert "3 images × 2 views" in lines[0]
    assert all(bank_build.verify(recipe).difference < 1e-5 for recipe in (wanted, sharded))
    with passes(monkeypatch) as seen:
        assert difference(losses(wanted), losses(sharded)) < 1e-5
    assert seen == []


def test_arms_of_a_comparison_share_a_bank_that_is_named(
    teach: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = banked(teach("fasterrcnn", methods={}), tmp_path / "bank", **{"training.epochs": 1})
    bank_build.fill(wanted)
    measured: list[int] = []
    find = Teacher.outputs

    def counted(self: Teacher, batch: Batch) -> Features:
        measured.append(len(batch))
        return find(self, batch)

    monkeypatch.setattr(Teacher, "outputs", counted)
    with passes(monkeypatch) as seen:
        compared = compare(wanted, methods=["pefd"], seeds=[0], out=tmp_path / "compared")
    assert seen == []
    assert [arm["verdict"] is None for arm in compared.arms] == [True, False]
    control, pefd = (Run(tmp_path / "compared" / arm["runs"][0]) for arm in compared.arms)
    images = control.evaluation["images"]
    assert sum(measured) == images, "the teacher finds its objects once, for both arms"
    assert pefd.evaluation["teacher"]["metrics"] == control.evaluation["teacher"]["metrics"]
    (kept,) = (tmp_path / "bank").glob("outputs-*.bin")
    kept.write_bytes(kept.read_bytes()[:-1])
    again = train(Recipe.load(wanted, {"methods": {"pefd": {}}}), out=tmp_path / "again")
    assert sum(measured) == 2 * images, "a damaged file is written anew"
    assert again.evaluation["teacher"] == pefd.evaluation["teacher"]


def test_images_of_several_sizes_are_seen_alone(
    teach: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"data.augment": "none", "training.batch": 1}
    wanted = teach("fasterrcnn", classes=3, **changes)
    stored = banked(wanted, tmp_path)
    assert difference(losses(wanted, SIZES), losses(stored, SIZES)) < 1e-5
    assert len(list(tmp_path.glob("*x*"))) > 1
    # In batches with padding every image still has the maps that it has alone.
    padded = Recipe.load(stored, {"training.batch": 3})
    with passes(monkeypatch) as seen:
        rows = losses(padded, SIZES)
    assert seen == []
    assert 0 < difference(losses(Recipe.load(padded, {"bank.path": ""}), SIZES), rows) < 1


def test_of_endless_views_as_many_are_stored_as_asked_for(
    teach: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = teach("fasterrcnn", methods=MAPS, **{"data.augment": "scale_jitter"})
    stored = banked(wanted, tmp_path)
    first = losses(stored)
    with passes(monkeypatch) as seen:
        assert difference(first, losses(stored)) == 0
    assert seen == [2, 2], "the second epoch has no place"
    with passes(monkeypatch) as seen:
        losses(Recipe.load(stored, {"bank.views": 2}))
        losses(Recipe.load(stored, {"bank.views": 2}))
    assert seen == [2, 2]


def test_mirrored_views_are_numbered_and_shown_as_they_were_drawn() -> None:
    views = ObjectViews(Scenes(5, seed=0), augment="flip", seed=3, jitter=0.0)
    index, view = torch.arange(5).repeat(4), torch.arange(4).repeat_interleave(5)
    number = views.number(index, view)
    assert (views.count, set(number.tolist())) == (2, {0, 1})
    (images, objects), (again, objects_again) = views(index, view), views.show(index, number)
    assert torch.equal(images, again)
    for one, other in zip(objects.boxes, objects_again.boxes, strict=True):
        assert torch.equal(one, other)
    assert views.number(index, torch.full_like(index, CLEAN)).tolist() == [0] * 20
    assert ObjectViews(views.source, augment="flip", seed=3, jitter=0.1).count is None
    assert "seed" not in views.description


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"student.options.min_size": [64, 80]}, r"draws the side .* not fixed .* one min_size"),
        ({"bank.codes": True}, r"read where the student looks, in other places in every step"),
        ({"bank.top_logits": 2}, r"holds its maps, from which logits are computed"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    teach: Callable[..., Recipe], changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    wanted = banked(teach("fasterrcnn", **changes), tmp_path / "bank")
    with pytest.raises(RecipeError, match=sentence):
        losses(wanted)
    assert not (tmp_path / "bank").exists()


def test_a_view_of_another_size_is_refused(teach: Callable[..., Recipe], tmp_path: Path) -> None:
    wanted = banked(teach("fasterrcnn", classes=3), tmp_path)
    made = build.experiment(wanted, images=SIZES)
    (replay,) = bank_attach.attach(made, wanted).values()
    batch = next(made.everything.single_pass(augmented=False))
    assert isinstance(replay, MapReplay)
    sizes = replay.bank.canvases.of_image
    other = (sizes != sizes[0]).nonzero()[0]
    with pytest.raises(BankError, match=r"pixels has not the size of its image"):
        replay(replace(batch[torch.tensor([0])], index=other))


def test_banks_of_maps_and_of_features_are_not_confused(
    teach: Callable[..., Recipe], tmp_path: Path
) -> None:
    wanted, manifest = banked(teach("fasterrcnn"), tmp_path), tmp_path / "manifest.json"
    experiment, teacher = bank_build.built(wanted, "cpu", None)

    def opened(*, create: bool = True) -> Any:
        return bank_attach.open_any(experiment, teacher, wanted, create=create)

    with pytest.raises(BankError, match="There is no bank in"):
        opened(create=False)
    opened()
    text = manifest.read_text(encoding="utf-8")
    for old, new, sentence in (
        ("maps by size", "views × images", "holds a bank of features of whole images"),
        (experiment.digests["teacher"], "0" * 16, "another teacher"),
        ("padding", "nothing", "is damaged: it has no 'padding'"),
    ):
        manifest.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(BankError, match=sentence):
            opened()
