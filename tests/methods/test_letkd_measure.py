"""What letKD measures of a teacher: codebook, axes, sub-classes and decisions; interrupted too."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from torch import Tensor

from tests.vectors.build import Outputs
from understudy.batch import Batch
from understudy.errors import BankError, ShapeError
from understudy.features import Features, Shapes
from understudy.methods._letkd import measure
from understudy.methods._letkd.feature_file import FeatureFile
from understudy.methods._letkd.kmeans import kmeans, nearest, share, step
from understudy.methods._letkd.subclasses import FAR, Scatter, centers_of
from understudy.methods.letkd import SCORES, LetKD

CLASSES = 3
SIZES = {"words": 8, "subclasses": 2, "dims": 2, "iterations": 4}


def outputs(images: int = 30, seed: int = 0, *, labelled: bool = True) -> Outputs:
    """Maps in clusters: each class has two kinds of locations, one of which all classes share."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % CLASSES
    kinds = torch.rand(images, 1, 2, 2, generator=random) < 0.5
    centre = torch.eye(5)[labels][:, :, None, None] * 6
    shared = torch.eye(5)[4].view(1, 5, 1, 1) * 6
    noise = torch.randn(images, 5, 2, 2, generator=random)
    maps = torch.where(kinds, centre, shared).expand(-1, -1, 2, 2) + noise
    known = labels if labelled else torch.full_like(labels, -1)
    return Outputs({"penultimate/map": maps, "last_stage/first": maps.flip(1)}, known)


def method(keep: Path | str = "", **hyper: object) -> LetKD:
    student = dict.fromkeys(SCORES.values(), (4, 2, 2)) | {"logits": (CLASSES,)}
    teacher = {"penultimate/map": (5, 2, 2), "last_stage/first": (5, 2, 2)}
    made = SIZES | {"keep": str(keep)} | hyper
    return LetKD(Shapes("student", student), Shapes("teacher", teacher), **made)


def state(made: LetKD) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in made.state_dict().items()}


class Counted(Outputs):
    """Counts the images it has shown, and can break off."""

    shown = 0
    limit = 10**9

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        assert not augmented
        for features, seen in super().batches(augmented=augmented):
            type(self).shown += len(seen)
            if type(self).shown > type(self).limit:
                raise KeyboardInterrupt
            yield features, seen


def counted() -> Counted:
    Counted.shown, Counted.limit = 0, 10**9
    made = outputs()
    return Counted(made.features, made.labels)


def test_a_step_of_lloyd_in_loops() -> None:
    rows, centers = torch.randn(40, 3).double(), torch.randn(5, 3).double()
    members: list[list[int]] = [[] for _ in centers]
    error = 0.0
    for i, row in enumerate(rows):
        distances = [float((row - c).square().sum()) for c in centers]
        members[distances.index(min(distances))].append(i)
        error += min(distances) / len(rows)
    found = step(iter(rows.split(7)), centers)
    assert found.counts.tolist() == [len(m) for m in members]
    assert found.error == pytest.approx(error)
    for k, mine in enumerate(members):
        expected = rows[mine].mean(0) if mine else centers[k]
        torch.testing.assert_close(found.centers[k], expected)


def test_growing_samples_cluster_almost_as_well_as_all_rows_every_time() -> None:
    torch.manual_seed(0)
    kinds = 4 * torch.randn(40, 6)
    rows = kinds[torch.randint(40, (6400,))] + torch.randn(6400, 6)
    first = rows[:64]
    full = kmeans(lambda share: iter([rows]), first, 20)
    grown = kmeans(lambda share: iter([rows[: int(share * len(rows))]]), first, 20)
    work = sum(share(i, 20) for i in range(20))
    assert work < 6
    assert grown.error < 1.03 * full.error


def test_axes_solve_the_generalised_eigenproblem() -> None:
    torch.manual_seed(0)
    labels = torch.arange(90) % CLASSES
    mix = torch.randn(4, 4).double()
    rows = (torch.randn(90, 4).double() + torch.randn(CLASSES, 4).double()[labels]) @ mix
    scatter = Scatter(CLASSES, 4, torch.device("cpu"))
    for label in range(CLASSES):
        scatter.add(rows[labels == label], label)
    axes, mean = scatter.axes(3)
    means = torch.stack([rows[labels == c].mean(0) for c in range(CLASSES)])
    within = sum(((rows[labels == c] - means[c]).T @ (rows[labels == c] - means[c])
                  for c in range(CLASSES)), torch.zeros(4, 4)) / (90 - CLASSES)  # fmt: skip
    between = 30 * (means - rows.mean(0)).T @ (means - rows.mean(0))
    _, vectors = eigh(between.numpy(), within.numpy())
    expected = torch.from_numpy(np.ascontiguousarray(vectors[:, ::-1][:, :2]))
    signs = (expected * (within @ axes[:, :2])).sum(0).sign()
    torch.testing.assert_close(axes[:, :2] * signs, expected)
    assert (axes[:, 2] == 0).all(), "three classes have two axes"
    torch.testing.assert_close(mean, rows.mean(0))


def test_directions_without_spread_are_left_out() -> None:
    rows = torch.cat([torch.randn(30, 2), torch.zeros(30, 1)], 1)
    scatter = Scatter(2, 3, torch.device("cpu"))
    scatter.add(rows, 0)
    scatter.add(rows + 1 - torch.eye(3)[2], 1)
    axes, _ = scatter.axes(2)
    assert axes.isfinite().all()
    assert (axes[2] == 0).all()


def test_a_class_without_rows_is_far_from_everything() -> None:
    assert (centers_of(torch.zeros(0, 2), 3, 4) == FAR).all()
    few = centers_of(torch.tensor([[1.0, 2.0]]), 3, 4)
    assert few.tolist() == [[1.0, 2.0], [FAR, FAR], [FAR, FAR]]


def test_prepare_finds_words_that_the_locations_are_near_to() -> None:
    made, teacher = method(), outputs()
    made.prepare(teacher)
    rows = teacher.features["penultimate/map"].permute(0, 2, 3, 1).flatten(0, 2)
    _, distance = nearest(rows, made.words)
    spread = (rows - rows.mean(0)).square().sum(1).mean()
    assert distance.mean() < 0.3 * spread
    assert made.word_counts.sum() == len(rows)


def test_decisions_are_shares() -> None:
    made = method()
    made.prepare(outputs(60))
    torch.testing.assert_close(made.decisions.sum(1), torch.ones(2 * CLASSES))
    assert made.decisions.diagonal().mean() > 0.4


def test_measuring_does_not_hang_on_the_seed() -> None:
    first, second = method(), method()
    torch.manual_seed(1)
    first.prepare(outputs())
    torch.manual_seed(2)
    second.prepare(outputs())
    again = state(second)
    assert all(torch.equal(x, again[name]) for name, x in state(first).items())


def test_what_is_kept_serves_other_runs_without_another_pass(tmp_path: Path) -> None:
    first, second, teacher = method(tmp_path), method(tmp_path), counted()
    first.prepare(teacher)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "intermediate.safetensors",
        "penultimate.safetensors",
    ]
    Counted.shown = 0
    second.prepare(teacher)
    assert Counted.shown == 16, "a first batch, to know the teacher again"
    assert all(torch.equal(x, state(second)[name]) for name, x in state(first).items())
    alone = method(tmp_path, places="penultimate")
    alone.prepare(teacher)
    assert torch.equal(alone.words, first.words)


def test_interrupted_pass_begins_again(tmp_path: Path) -> None:
    made, teacher = method(tmp_path), counted()
    Counted.limit = 40
    with pytest.raises(KeyboardInterrupt):
        made.prepare(teacher)
    Counted.limit = 10**9
    made.prepare(teacher)
    whole = method()
    whole.prepare(counted())
    assert all(torch.equal(x, state(whole)[name]) for name, x in state(made).items())


@pytest.mark.parametrize("stage", ["_codebook", "_axes", "_prototypes", "_decisions"])
def test_interrupted_stage_goes_on_without_the_teacher(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = method()
    whole.prepare(counted())

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    made, teacher = method(tmp_path), counted()
    with monkeypatch.context() as patch:
        patch.setattr(measure._Stages, stage, interrupt)
        with pytest.raises(KeyboardInterrupt):
            made.prepare(teacher)
    Counted.shown = 0
    made.prepare(teacher)
    assert Counted.shown == 16
    assert all(torch.equal(x, state(whole)[name]) for name, x in state(made).items())


def test_interrupted_codebook_goes_on_at_the_next_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = method()
    whole.prepare(counted())
    done: list[int] = []
    put = measure.StageStore.put

    def watched(store: measure.StageStore, **tensors: Tensor) -> None:
        put(store, **tensors)
        if "word_iterations" in tensors:
            done.append(int(tensors["word_iterations"]))
            if done == [1, 2]:
                raise KeyboardInterrupt

    monkeypatch.setattr(measure.StageStore, "put", watched)
    made = method(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        made.prepare(counted())
    made.prepare(counted())
    assert done == [1, 2, 3, 4]
    assert torch.equal(made.words, whole.words)


def test_what_was_measured_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    method(tmp_path).prepare(outputs())
    with pytest.raises(BankError, match="measured with count 8, but 6 is asked for"):
        method(tmp_path, words=6).prepare(outputs())
    with pytest.raises(BankError, match="with images 30, but 27 is asked for"):
        method(tmp_path).prepare(outputs(27))
    with pytest.raises(BankError, match="another teacher, other images"):
        method(tmp_path).prepare(outputs(seed=1))


def test_a_damaged_file_and_a_folder_that_cannot_be_made_are_one_sentence(tmp_path: Path) -> None:
    method(tmp_path).prepare(outputs())
    (tmp_path / "penultimate.safetensors").write_bytes(b"nothing of use")
    with pytest.raises(BankError, match=r"penultimate.safetensors is damaged; remove it"):
        method(tmp_path).prepare(outputs())
    blocked = tmp_path / "penultimate.safetensors" / "folder"
    with pytest.raises(BankError, match="cannot store what letkd measures"):
        method(blocked).prepare(outputs())


def test_without_any_class_the_intermediate_place_cannot_be_measured() -> None:
    with pytest.raises(ShapeError, match="set places to penultimate"):
        method().prepare(outputs(labelled=False))
    method(places="penultimate").prepare(outputs(labelled=False))


def test_rows_come_back_in_order_and_too_large_ones_are_refused(tmp_path: Path) -> None:
    rows, maps = FeatureFile(tmp_path / "rows", 4, 3), torch.randn(5, 3, 2, 2)
    with rows.path.open("wb") as file:
        rows.append(file, maps[:2])
        rows.append(file, maps[2:])
        with pytest.raises(ShapeError, match="65504"):
            rows.append(file, 1e5 * maps)
    expected = maps[[1, 4]].permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(rows.read(torch.tensor([1, 4])), expected, rtol=1e-3, atol=1e-3)
