"""A bank replays the teacher: the same student to the bit, and no teacher's forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.banked_runs import banked, counted, folder_of_images, shown
from tests.support.small_runs import CNN, outcome, trainer_of
from understudy.bank import Table
from understudy.config.recipe import Recipe
from understudy.errors import BankError, RecipeError
from understudy.experiment import bank_attach, bank_build, bank_plan, build
from understudy.experiment.train import train
from understudy.features import Features
from understudy.methods.lshfm import LSHFM


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


def test_a_first_run_asks_the_teacher_for_new_views_only(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"training.batch": 10, "data.images": 100})
    experiment = build.experiment(wanted)
    (source,) = bank_attach.attach(experiment, wanted).values()
    teacher, size = source.teacher, wanted.training.batch
    shown = 0
    with counted(monkeypatch) as seen:
        for epoch in range(60):
            for [batch] in experiment.train.epoch(epoch):
                given = experiment.distiller.observe(batch)
                shown += len(batch)
                if epoch == 30:
                    asked = len(seen)
                    for name, x in teacher(batch).items():
                        assert name not in given or torch.equal(given[name], x), name
                    del seen[asked:]
    assert set(seen) == {size}, "the teacher always runs on whole batches"
    assert sum(seen) < 1.1 * source.bank.filled() < 0.95 * shown


def test_an_fp16_bank_is_close(tiny: Recipe, tmp_path: Path) -> None:
    online = train(tiny, out=tmp_path / "online")
    halved = train(
        banked(tiny, tmp_path / "bank", **{"bank.dtype": "fp16"}), out=tmp_path / "halved"
    )
    for exact, near in zip(online.history, halved.history, strict=True):
        assert near["losses"] == pytest.approx(exact["losses"], rel=1e-2)


def test_a_method_that_reads_more_than_is_stored_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", methods={"fitnet": {"feature": "stage2"}})
    with pytest.raises(RecipeError, match="'fitnet' reads stage2"):
        train(wanted, out=tmp_path / "run")
    stored = banked(wanted, tmp_path / "bank", **{"bank.features": ["stage2"]})
    train(stored, out=tmp_path / "stored")


def test_plan_fill_and_verify(tiny: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip"})
    planned = bank_plan.plan(wanted)
    assert not (tmp_path / "bank").exists()
    assert planned.contract.records == 200 * 2
    assert planned.contract.bytes == planned.hot_bytes == 400 * (4 * (32 + 10) + 4)
    assert planned.sizes["penultimate"] == {
        "fp32": 400 * 128, "fp16": 400 * 64, "int8": 400 * (4 + 32)
    }  # fmt: skip
    assert planned.sizes["stage2"]["fp32"] == 400 * 4 * 32 * 4 * 4
    assert {"kd", "lshfm", "nd", "pefd"} <= set(planned.serves)
    assert planned.unserved["fitnet"] == ("stage2",)
    assert min(planned.free_bytes, planned.memory_bytes) > planned.contract.bytes
    told: list[tuple[int, int]] = []
    bank = bank_build.fill(wanted, watch=lambda *counts: told.append(counts))
    assert (bank.filled(), told[-1]) == (400, (400, 400))
    assert bank_build.verify(wanted).difference < 1e-5
    with counted(monkeypatch) as seen:
        _weights(wanted)
    assert seen == []
    banked_run = train(wanted, out=tmp_path / "banked")
    online = Recipe.load(wanted, {"bank.path": ""})
    for exact, near in zip(
        train(online, out=tmp_path / "online").history, banked_run.history, strict=True
    ):
        # Filled in batches of another size than training's, which may round differently.
        assert near["losses"] == pytest.approx(exact["losses"], rel=1e-4)


def test_filling_goes_on_where_it_stopped(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip"})

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bank_build.fill(wanted, watch=stop)
    told: list[int] = []
    assert bank_build.fill(wanted, watch=lambda done, total: told.append(done)).filled() == 400
    assert told[0] == 400


def test_verify_notices_what_the_teacher_does_not_give(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "none"})
    with pytest.raises(BankError, match="is empty"):
        bank_build.verify(wanted)
    right = bank_build.fill(banked(wanted, tmp_path / "right"))
    index, number = torch.arange(200), torch.zeros(200, dtype=torch.int64)
    Table(tmp_path / "bank", right.contract).write(index, number, right.read(index.flip(0), number))
    with pytest.raises(BankError, match="differs from what the teacher gives"):
        bank_build.verify(wanted)
    with pytest.raises(RecipeError, match="names no bank"):
        bank_build.verify(tiny)


def test_images_from_files_have_as_many_views_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {
        "data": {"source": "folder", "root": str(folder_of_images(tmp_path / "images")),
                 "size": 32},
        "student": {"name": CNN},
        "training": {"epochs": 2, "batch": 8, "lr": 0.01, "schedule": "constant"},
    }  # fmt: skip
    teacher = train(Recipe.load(base, {"training.epochs": 1}), out=tmp_path / "teacher")
    changes = {
        "data.augment": "resized_crop",
        "trust": True,  # the teacher's run names the file of its network
        "teacher.weights": str(teacher.path),
        "methods": {"kd": {}, "nd": {}},
    }
    wanted = Recipe.load(base, {**changes, "bank": {"path": str(tmp_path / "bank"), "views": 1}})
    more = Recipe.load(wanted, {"bank.views": 2})
    online = train(Recipe.load(base, changes), out=tmp_path / "online")
    first = train(wanted, out=tmp_path / "first")
    with counted(monkeypatch) as seen:
        grown = train(more, out=tmp_path / "grown")
    assert seen == [8, 8, 8]  # view 1 of 24 images; view 0 and the clean one were there
    with counted(monkeypatch) as seen:
        full = train(wanted, out=tmp_path / "full")
    assert seen == []
    assert outcome(online) == outcome(first) == outcome(grown) == outcome(full)
    assert bank_build.fill(more).filled() == 24 * 3
    assert bank_build.verify(more).difference < 1e-5


@pytest.mark.parametrize("means", ["clean", "augmented"])
def test_a_full_bank_lets_methods_prepare_without_images_or_teacher(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, means: str
) -> None:
    measuring = {"methods": {"lshfm": {"hashes": 16}, "nd": {"means": means}}}
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip", **measuring})
    online = build.experiment(Recipe.load(wanted, {"bank.path": ""}))
    online.prepare()
    bank_build.fill(wanted)
    experiment = build.experiment(wanted)
    bank_attach.attach(experiment, wanted)
    with counted(monkeypatch) as seen, shown(monkeypatch) as images:
        experiment.prepare()
    assert (seen, images) == ([], [])
    state = experiment.distiller.trainable.state_dict()
    for name, exact in online.distiller.trainable.state_dict().items():
        torch.testing.assert_close(state[name], exact, rtol=1e-4, atol=1e-4)


def test_only_batches_that_miss_something_are_shown(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "none", "data.images": 600})
    experiment = build.experiment(wanted)
    bank_attach.attach(experiment, wanted)
    loader, distiller = experiment.everything, experiment.distiller
    first, second, third = loader.single_pass(augmented=False)
    distiller.observe(first)
    distiller.observe(third)
    with counted(monkeypatch) as seen, shown(monkeypatch) as images:
        experiment.prepare()
    assert seen == images == [256]
    got = list(loader.single_pass(augmented=False, stored=distiller.distillations[0].stored))
    assert [batch.images.shape for batch in got] == [(256, 3, 0, 0), (256, 3, 0, 0), (88, 3, 0, 0)]
    for bare, whole in zip(got, (first, second, third), strict=True):
        assert torch.equal(bare.labels, whole.labels)
        assert torch.equal(bare.index, whole.index)
        assert torch.equal(bare.view, whole.view)


def test_codes_are_stored_apart_and_change_nothing(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {
        "lshfm": {"hashes": 40},
        "other": {"method": "lshfm", "hashes": 24, "weight": 1.0},
        "kd": {},
    }
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "flip", "methods": methods})
    plain = train(wanted, out=tmp_path / "plain")
    coded = Recipe.load(wanted, {"bank.codes": True})
    first = train(coded, out=tmp_path / "first")
    kept = [len(list((tmp_path / "bank").glob(f"{label}-*"))) for label in methods]
    assert kept == [1, 1, 0]
    computed: list[int] = []
    codes = LSHFM.codes

    def spy(self: LSHFM, teacher: Features) -> Features:
        computed.append(len(teacher["penultimate"]))
        return codes(self, teacher)

    monkeypatch.setattr(LSHFM, "codes", spy)
    second = train(coded, out=tmp_path / "second")
    assert len(computed) == 2  # of the first batch, to know how many bytes each has
    assert outcome(plain) == outcome(first) == outcome(second)
    train(Recipe.load(coded, {"seed": 3, "data.seed": 0}), out=tmp_path / "third")
    assert len(list((tmp_path / "bank").glob("lshfm-*"))) == 2  # other hashes, other codes


def test_the_time_of_the_live_teacher_is_known(tiny: Recipe, tmp_path: Path) -> None:
    wanted = banked(tiny, tmp_path / "bank", **{"data.augment": "none"})
    experiment = build.experiment(wanted)
    teacher = experiment.distiller.teacher
    assert teacher is not None
    source = bank_attach.open_replay(experiment, teacher, wanted)
    (batch,) = experiment.everything.single_pass(augmented=False)
    source(batch)
    spent = source.seconds
    assert spent > 0
    source(batch)
    assert source.seconds == spent


def test_an_fp16_bank_changes_less_than_another_memory_layout(tiny: Recipe, tmp_path: Path) -> None:
    """After 30 steps of a network with batch normalisation, which enlarges every difference."""
    taught = {
        "student": "resnet8",
        "data.images": 192,
        "training": {"epochs": 5, "lr": 0.01, "schedule": "step", "channels_last": False},
    }
    base = Recipe.load(tiny, taught)
    exact = _weights(base)
    rounded = _weights(banked(base, tmp_path / "bank", **{"bank.dtype": "fp16"}))
    moved = _weights(Recipe.load(base, {"training.channels_last": True}))
    by_rounding, by_layout = (float((x - exact).norm() / exact.norm()) for x in (rounded, moved))
    assert 0 < by_rounding <= 1.5 * by_layout, f"{by_rounding:.2e} against {by_layout:.2e}"


def _weights(wanted: Recipe) -> torch.Tensor:
    """Those of the student at the end of its training."""
    experiment = build.experiment(wanted)
    bank_attach.attach(experiment, wanted)
    trainer = trainer_of(experiment, wanted)
    list(trainer.fit())
    return torch.cat([x.detach().flatten() for x in trainer.student.parameters()])
