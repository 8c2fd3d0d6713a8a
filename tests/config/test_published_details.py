"""Details of the published protocols that a recipe carries beside its hyper-parameters."""

import pytest
import torch
from torch import nn

from understudy import models
from understudy.config import tables
from understudy.config.recipe import Recipe
from understudy.data import Loader, MemoryViews
from understudy.distillation.distiller import Weight
from understudy.errors import DataError
from understudy.features import Shapes
from understudy.methods.nd import ND


def steps(images: int, *, batch: int, drop_last: bool) -> int:
    views = MemoryViews(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), augment="none", size=4, seed=0)
    labels = torch.zeros(images, dtype=torch.int64)
    return len(Loader(views, labels, batch=batch, seed=0, shuffle=True, drop_last=drop_last))


@pytest.mark.parametrize(
    ("row", "images", "published"),
    [
        ("cifar100/letkd1/resnet56_resnet20", 50_000, 781),
        ("cifar100/letkd2/resnet56_resnet20", 50_000, 781),
        ("cifar100/quest/resnet56_resnet20", 50_000, 781),
        ("cifar100/pairs/resnet56_resnet20", 50_000, 782),
        ("voc07/lshl2/resnet101_mobilenet_v2", 5_011, 313),
        ("coco14/lshl2/resnet101_mobilenet_v2", 82_081, 2_565),
    ],
)
def test_an_epoch_has_the_published_number_of_steps(row: str, images: int, published: int) -> None:
    training = Recipe.load(row).training
    assert steps(images, batch=training.batch, drop_last=training.drop_last) == published


def test_no_batch_left_is_refused() -> None:
    with pytest.raises(DataError, match=r"training\.drop_last leaves nothing"):
        steps(7, batch=8, drop_last=True)


def test_mdistiller_counts_a_warm_up_from_one_and_nd_from_zero() -> None:
    mdistiller = Weight(1.0, warmup_epochs=20, warmup_counts_from=1)
    assert [mdistiller.at(epoch) for epoch in (0, 9, 19, 20)] == [0.05, 0.5, 1.0, 1.0]
    nd = Weight(1.0, warmup_epochs=20)
    assert [nd.at(epoch) for epoch in (0, 10, 20)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("row", "method", "counts_from"),
    [
        ("cifar100/dkd/resnet32x4_resnet8x4", "dkd", 1),
        ("cifar100/reviewkd/resnet32x4_resnet8x4", "reviewkd", 1),
        ("cifar100/dkd++/resnet32x4_resnet8x4", "dkd", 0),
        ("cifar100/reviewkd++/resnet32x4_resnet8x4", "reviewkd", 0),
        ("cifar100/kd++/resnet32x4_resnet8x4", "kd", 0),
    ],
)
def test_recipes_count_their_warm_up_as_their_code_does(
    row: str, method: str, counts_from: int
) -> None:
    assert Recipe.load(row).methods[method]["weight"].get("warmup_counts_from", 0) == counts_from


@pytest.mark.parametrize(
    "row",
    [
        "with_kd/kd_resnet8x4",
        "with_kd/crd_resnet8x4",
        "srrl/resnet32x4_resnet8x4",
        "semckd/resnet32x4_resnet8x4",
        "simkd/resnet32x4_resnet8x4",
    ],
)
def test_tables_of_simkd_have_its_own_student(row: str) -> None:
    assert tables.about(f"cifar100/{row}").student == "73.09"


@pytest.mark.parametrize("table", ["letkd1", "letkd2", "quest"])
def test_letkd_on_imagenet_has_the_figures_of_its_paper(table: str) -> None:
    assert tables.about(f"imagenet/{table}/resnet34_resnet18").student == "69.75"
    assert tables.about(f"imagenet/{table}/resnet50_mobilenetv1").teacher == "76.13"


def spread(layer: nn.Linear) -> float:
    return float(layer.weight.detach().std())


def test_the_embedding_of_mobilenet_starts_as_in_the_authors_code() -> None:
    student = models.find("torchvision:mobilenet_v2", num_classes=10, view_size=64)
    student.embed(2048)
    block = student.module.classifier[1]
    for layer in (block.embedding, block.classifier):
        assert spread(layer) == pytest.approx(0.01, rel=0.05)
        assert torch.count_nonzero(layer.bias) == 0


def test_layers_added_to_other_networks_start_as_those_of_torch() -> None:
    student = models.find("torchvision:resnet18", num_classes=10, view_size=64)
    student.embed(2048)
    assert spread(student.module.fc.embedding) == pytest.approx((3 * 512) ** -0.5, rel=0.05)


@pytest.mark.parametrize(("row", "bias"), [("kd++", 0.01), ("dkd++", 0.01), ("reviewkd++", 0.0)])
def test_nd_on_imagenet_starts_its_embedding_from_the_published_spread(
    row: str, bias: float
) -> None:
    keys = dict(Recipe.load(f"imagenet/{row}/resnet50_resnet18").methods["nd"])
    keys.pop("weight")
    student = Shapes("the student", {"penultimate": (512,), "logits": (1000,)})
    teacher = Shapes("the teacher", {"penultimate": (2048,), "logits": (1000,)})
    linear = ND(student, teacher, **keys).embedding[2]
    assert isinstance(linear, nn.Linear)
    assert spread(linear) == pytest.approx(0.01, rel=0.05)
    assert float(linear.bias.detach().std()) == pytest.approx(bias, rel=0.1)
    default = ND(student, teacher).embedding[2]
    assert isinstance(default, nn.Linear)
    assert spread(default) == pytest.approx((3 * 512) ** -0.5, rel=0.05)
