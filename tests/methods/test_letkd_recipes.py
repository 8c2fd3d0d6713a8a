"""The recipes of letKD: every one is built between its own networks and takes two steps."""

import pytest
import torch

from understudy import models, tasks
from understudy.batch import Batch
from understudy.config import tables
from understudy.config.recipe import Recipe
from understudy.distillation.wire import distiller

TABLES = ("cifar100/letkd1/", "cifar100/letkd2/")
NAMES = [name for name in tables.shipped() if name.startswith(TABLES)]


def test_all_pairs_of_the_paper_are_there_in_both_forms() -> None:
    pairs = {(r.teacher.name, r.student.name) for r in map(Recipe.load, NAMES)}
    assert len(pairs) == 10
    assert len(NAMES) == 20


# The widest teacher and those with other places, sizes and strengths; the others differ by depth.
@pytest.mark.parametrize(
    "name",
    [
        "letkd1/wrn_40_2_wrn_40_1",
        "letkd2/resnet56_resnet20",
        "letkd2/resnet32x4_shufflenetv2",
        "letkd2/resnet50_mobilenetv2",
    ],
)
def test_takes_two_steps(name: str) -> None:
    wanted = Recipe.load(f"cifar100/{name}", {"methods.letkd.words": 16})
    teacher = models.find(wanted.teacher.name).eval()
    student = models.find(wanted.student.name)
    built = distiller(wanted, student, {"": teacher}, tasks.find("classification"))
    method = built.trainable.methods["letkd"]
    method.words.normal_()
    method.word_counts.fill_(1)
    method.prepared = True
    optimizer = torch.optim.SGD(built.trainable.parameters(), lr=0.01)
    for seed in range(2):
        random = torch.Generator().manual_seed(seed)
        images = torch.rand(4, 3, 32, 32, generator=random)
        losses = built(Batch.of(images, torch.tensor([1, 5, 70, 99])))
        optimizer.zero_grad()
        built.total(losses).backward()
        optimizer.step()
        assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(), f"nothing teaches {name}"
