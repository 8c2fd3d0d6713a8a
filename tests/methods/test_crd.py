"""CRD against plain loops, the draw of its negatives, its memory, and several processes."""

from collections.abc import Iterator
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn import functional as F

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs, batch
from understudy.batch import UNLABELLED, Batch
from understudy.errors import RecipeError, ShapeError
from understudy.features import Features
from understudy.methods.crd import CRD, Contrast, crd

NET = shapes("net", penultimate=4)
IMAGES = 12


def built(labels: Tensor | None = None, **hyper: object) -> CRD:
    torch.manual_seed(3)
    method = CRD(NET, NET, **{"dim": 3, "negatives": 5, **hyper})
    labels = torch.arange(IMAGES) % 3 if labels is None else labels
    method.prepare(Outputs({"penultimate": torch.zeros(len(labels), 4)}, labels))
    return method.double()


def images(index: list[int]) -> Batch:
    return replace(batch(len(index)), index=torch.tensor(index))


def plain(
    anchor: Tensor, memory: Tensor, own: list[int], others: list[list[int]], z: float
) -> float:
    """The published form, with Z given or that of these rows."""
    k, n = len(others[0]), len(memory)
    powers = [
        [exp(float(memory[c] @ v) / 0.07) for c in [i, *row]]
        for v, i, row in zip(anchor, own, others, strict=True)
    ]
    z = z or n * sum(map(sum, powers)) / (len(own) * (k + 1))
    total = 0.0
    for row in powers:
        u = [value / z for value in row]
        total -= log(u[0] / (u[0] + k / n + 1e-7))
        total -= sum(log((k / n) / (w + k / n + 1e-7)) for w in u[1:])
    return total / len(own)


@pytest.mark.parametrize("z", [0.0, 700.0])
def test_equals_the_published_form_with_its_gradient(z: float) -> None:
    memory = F.normalize(torch.randn(IMAGES, 3)).double()
    own, others = [0, 4], [[1, 2, 3, 5, 7], [0, 2, 3, 6, 7]]
    contrast = Contrast(torch.tensor(own)[:, None], torch.tensor(others), 1.0, 5)
    v = F.normalize(torch.randn(2, 3).double()).requires_grad_()
    rows, used = crd(v, memory, contrast, torch.tensor(z).double())
    rows.mean().backward()
    value = plain(v.detach(), memory, own, others, z)
    assert rows.mean().item() == pytest.approx(value)
    for i in range(2):
        for d in range(3):
            moved = v.detach().clone()
            moved[i, d] += 1e-6
            slope = (plain(moved, memory, own, others, used.item()) - value) / 1e-6
            assert v.grad[i, d].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_negatives_are_different_images_of_other_classes_and_all_alike_likely() -> None:
    method = built()
    own = torch.arange(IMAGES)
    differ = method.labels[own].unsqueeze(1) != method.labels
    times = torch.zeros(IMAGES, IMAGES)
    for _ in range(400):
        drawn = method._draw(differ)
        assert differ.gather(1, drawn).all()
        assert all(len(row.unique()) == 5 for row in drawn)
        times.scatter_add_(1, drawn, torch.ones(drawn.shape))
    # 5 of 8 others: each is drawn 250 times, give or take 10.
    assert (times[differ] - 250).abs().max() < 50


def test_negatives_repeat_where_there_are_too_few() -> None:
    labels = torch.tensor([0] * 9 + [1] * 3)
    method = built(labels, negatives=6)
    differ = labels.unsqueeze(1) != labels
    drawn = method._draw(differ)
    assert differ.gather(1, drawn).all()
    assert [len(row.unique()) == 6 for row in drawn] == [False] * 9 + [True] * 3
    assert built(labels, negatives=20)._draw(differ).shape == (12, 20)


def test_in_evaluation_it_is_the_expectation_over_the_draw() -> None:
    method = built()
    student, teacher = random(2, penultimate=4), random(2, penultimate=4)
    method(student, teacher, images([0, 4]))
    method.eval()
    with torch.no_grad():
        expected = method(student, teacher, images([0, 4]))
        assert torch.equal(method(student, teacher, images([0, 4])), expected)
        state = {name: x.clone() for name, x in method.state_dict().items()}
        draws = []
        for _ in range(2000):
            draws.append(method.train()(student, teacher, images([0, 4])))
            method.load_state_dict(state)
    spread = torch.stack(draws)
    assert abs(spread.mean() - expected) < 4 * spread.std() / len(draws) ** 0.5


def test_remembers_what_it_saw_halfway_and_keeps_z() -> None:
    method = built()
    before, bystander = method.student_memory[4].clone(), method.student_memory[5].clone()
    student, teacher = random(1, penultimate=4), random(1, penultimate=4)
    method(student, teacher, images([4]))
    v = F.normalize(method.ours(student["penultimate"]).detach())[0]
    expected = F.normalize((before + v) / 2, dim=0)
    torch.testing.assert_close(method.student_memory[4], expected)
    assert torch.equal(method.student_memory[5], bystander)
    z = method.z.clone()
    method(student, teacher, images([7]))
    assert torch.equal(method.z, z)
    assert not any(buffer.requires_grad for buffer in method.buffers())


def test_its_memory_is_restored_inside_a_larger_module() -> None:
    method, again = built(), CRD(NET, NET, dim=3, negatives=5).double()
    nn.ModuleDict({"crd": again}).load_state_dict(nn.ModuleDict({"crd": method}).state_dict())
    assert torch.equal(again.teacher_memory, method.teacher_memory)
    assert (again.fewest_others, again.most_others) == (8, 8)


def test_an_image_without_label_is_told_from_all_others() -> None:
    method = built(torch.tensor([0, 0, UNLABELLED, UNLABELLED, 1, 1]), negatives=2)
    assert (method.labels[2] != method.labels).sum() == 5
    assert (method.labels[0] != method.labels).sum() == 4


def test_says_what_it_cannot_remember() -> None:
    method = CRD(NET, NET)
    with pytest.raises(ShapeError, match="one class"):
        method.prepare(Outputs({"penultimate": torch.zeros(4, 4)}, torch.zeros(4).long()))

    class Unnumbered(Outputs):
        def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
            for features, part in super().batches(augmented=augmented):
                yield features, Batch.of(part.images, part.labels)

    with pytest.raises(ShapeError, match="`index`"):
        method.prepare(Unnumbered({"penultimate": torch.zeros(20, 4)}, torch.arange(20) % 2))
    with pytest.raises(RecipeError, match=r"'CRD\.negatives' is 0"):
        CRD(NET, NET, negatives=0)


SHARES = (slice(0, 3), slice(3, 5))


def two_steps(part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the second of two steps with a known draw, the memory, and Z."""
    method = built()
    s, t = torch.randn(2, 5, 4).double().unbind()
    index = [0, 4, 5, 9, 2]
    draws = torch.stack([torch.arange(i + 1, i + 6) % IMAGES for i in index])
    method._draw = lambda differ: draws[part]
    for _ in range(2):
        leaf = s[part].clone().requires_grad_()
        method({"penultimate": leaf}, {"penultimate": t[part]}, images(index[part])).backward()
    return leaf.grad, method.student_memory, method.z


def work(rank: int, folder: str) -> None:
    where = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=len(SHARES))
    torch.save(two_steps(SHARES[rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this build of PyTorch has no distributed part")
def test_two_processes_remember_what_one_does(tmp_path: Path) -> None:
    grad, memory, z = two_steps(slice(0, 5))
    start_processes(work, (str(tmp_path),), nprocs=len(SHARES), start_method="forkserver")
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]
    torch.testing.assert_close(torch.cat([p[0] for p in parts]) / len(parts), grad)
    for _, their_memory, their_z in parts:
        torch.testing.assert_close(their_memory, memory)
        torch.testing.assert_close(their_z, z)
