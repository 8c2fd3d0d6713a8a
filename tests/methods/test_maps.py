"""Which maps are compared, for the published pairs, for networks of other sizes and for tokens."""

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs, batch
from understudy import methods, models
from understudy.errors import ShapeError
from understudy.methods import Method
from understudy.methods._maps import attention, match_maps, to_smaller_size
from understudy.methods.ft import FT
from understudy.models import Network

METHODS = ["at", "nst", "vid", "ab", "ft", "fsp", "ofd", "reviewkd"]
PUBLISHED = [
    ("resnet20", "resnet56"),
    ("resnet8x4", "resnet32x4"),
    ("wrn_40_1", "wrn_40_2"),
    ("vgg8", "vgg13"),
    ("mobilenetv2", "vgg13"),
    ("mobilenetv2", "resnet50"),
    ("vgg8", "resnet50"),
    ("shufflenetv1", "resnet32x4"),
    ("shufflenetv2", "resnet32x4"),
    ("shufflenetv1", "wrn_40_2"),
]


@pytest.mark.parametrize(("student", "teacher"), PUBLISHED)
def test_published_pairs_compare_all_stages_but_the_stem(student: str, teacher: str) -> None:
    ours, theirs = models.find(student).shapes, models.find(teacher).shapes
    found = match_maps(ours, theirs)
    assert found == tuple((stage, stage) for stage in ours.stages)
    assert len(found) == len(theirs.stages)
    before = match_maps(ours, theirs, student_suffix="/preact", teacher_suffix="/preact")
    assert before == tuple((f"{stage}/preact", f"{stage}/preact") for stage in ours.stages)


def test_stages_are_matched_from_the_deepest_backwards() -> None:
    three = shapes("three", **{f"stage{i}": (4, 8, 8) for i in (1, 2, 3)})
    four = shapes("four", **{f"stage{i}": (4, 8, 8) for i in (1, 2, 3, 4)})
    expected = (("stage1", "stage2"), ("stage2", "stage3"), ("stage3", "stage4"))
    assert match_maps(three, four) == expected
    assert match_maps(four, three) == tuple((t, s) for s, t in expected)


def test_stages_can_be_named() -> None:
    net = shapes("net", stage1=(4, 8, 8), stage2=(4, 4, 4), hint=(3, 8, 8))
    assert match_maps(net, net, ("stage2", "stage1:hint")) == (
        ("stage2", "stage2"),
        ("stage1", "hint"),
    )


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("stage3",), "did you mean 'stage"),
        (("stage1:penultimate",), "vector"),
        (("tokens",), "no square grid"),
    ],
)
def test_says_what_cannot_be_compared(named: tuple[str, ...], words: str) -> None:
    net = shapes("net", stage1=(4, 8, 8), stage2=(4, 4, 4), tokens=(21, 5), penultimate=4)
    with pytest.raises(ShapeError, match=words):
        match_maps(net, net, named)


def test_the_larger_map_is_averaged_down() -> None:
    x, y = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 3, 2, 2)
    a, b = to_smaller_size(x, y)
    assert a.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert b is y
    assert torch.equal(to_smaller_size(y, x)[1], a)
    assert [
        z.shape[2:] for z in to_smaller_size(torch.zeros(1, 1, 2, 6), torch.zeros(1, 1, 3, 5))
    ] == [
        (2, 5),
        (2, 5),
    ]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 4.0])
def test_attention_in_plain_loops(power: float) -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    for row, found in zip(x, attention(x, power), strict=True):
        raw = [sum(abs(c.flatten()[n].item()) ** power for c in row) / 3 for n in range(4)]
        length = sum(v * v for v in raw) ** 0.5
        assert found.tolist() == pytest.approx([v / length for v in raw])


# ---- across families -------------------------------------------------------------------------


def distil(name: str, student: Network, teacher: Network) -> None:
    """A finite loss with a gradient that reaches the student."""
    cls: type[Method] = methods.find(name)
    quick = {"paraphraser_epochs": 1} if cls is FT else {}
    built = cls(student.shapes, teacher.shapes, **quick)  # type: ignore[call-arg]
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        target = teacher.eval().features(images)
    built.prepare(Outputs(target))
    assert set(built.reads) <= set(target)
    loss = built(student.train().features(images), target, batch(4))
    loss.backward()
    assert loss.isfinite()
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert any(grad.any() for grad in grads)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("student", "teacher"), [("shufflenetv2", "wrn_16_2"), ("vgg8", "resnet8x4")]
)
def test_across_the_families_of_the_papers(name: str, student: str, teacher: str) -> None:
    ours, theirs = models.find(student, num_classes=5), models.find(teacher, num_classes=5)
    # Of the student's four stages the last three are compared, which are a quarter as high.
    if name == "fsp":
        with pytest.raises(ShapeError, match="equal channels"):
            distil(name, ours, theirs)
    else:
        distil(name, ours, theirs)


VIT = {"num_classes": 5, "size": 64, "options": {"img_size": 64, "depth": 4}}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tokens", ["student", "teacher"])
def test_tokens_are_maps_or_refused_in_words(name: str, tokens: str) -> None:
    vit = models.find("timm:vit_tiny_patch16_224", **VIT)
    cnn = models.find("resnet8", num_classes=5)
    pair = (vit, cnn) if tokens == "student" else (cnn, vit)
    # `ofd` and `reviewkd` compare the stages of a network that has no maps before the activation.
    words = "no feature 'stage1/preact'" if name == "ab" else ""
    words = "equal channels" if name == "fsp" else words
    if words:
        with pytest.raises(ShapeError, match=words):
            distil(name, *pair)
    else:
        distil(name, *pair)


@pytest.mark.parametrize("name", ["ofd", "reviewkd"])
def test_the_stages_of_networks_of_other_libraries_are_compared_by_default(name: str) -> None:
    stages = {f"stage{i}": (2 * i, 16 // i, 16 // i) for i in (1, 2, 4)}
    stages = {f"stage{i}": shape for i, shape in enumerate(stages.values(), 1)}
    foreign = shapes("foreign", **stages, penultimate=8)
    preact = {f"{stage}/preact": shape for stage, shape in stages.items()}
    own = shapes("own", **stages, **preact, penultimate=8)
    before, named = [f"stage{i}/preact" for i in (1, 2, 3)], [*stages]
    of_student = before if name == "ofd" else named
    kind = methods.find(name)
    assert kind(foreign, own).pairs == tuple(zip(named, before, strict=True))  # type: ignore
    assert kind(foreign, foreign).pairs == tuple(zip(named, named, strict=True))  # type: ignore
    assert kind(own, foreign).pairs == tuple(zip(of_student, named, strict=True))  # type: ignore


@pytest.mark.parametrize("name", ["ab", "ofd", "reviewkd"])
def test_other_maps_can_stand_for_those_before_the_activation(name: str) -> None:
    student, teacher = random(4, stage1=(3, 4, 4), penultimate=5), random(4, map=(2, 4, 4))
    teacher["penultimate"] = torch.randn(4, 6, dtype=torch.float64)
    ours = shapes("student", stage1=(3, 4, 4), penultimate=5)
    theirs = shapes("teacher", map=(2, 4, 4), penultimate=6)
    built = methods.find(name)(ours, theirs, stages=("stage1:map",)).double()  # type: ignore[call-arg]
    built.prepare(Outputs(teacher))
    assert built(student, teacher, batch(4)).isfinite()
    assert built.reads[0] == "map"


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:regnetx_002", "torchvision:resnet18"])
def test_pre_activations_of_other_libraries_are_found(name: str) -> None:
    network = models.find(name, num_classes=5, size=64)
    for parameter in network.parameters():  # norms that begin at zero would give no negative value
        parameter.data += 0.1 * torch.randn_like(parameter)
    features = network.eval().features(torch.rand(2, 3, 64, 64))
    pre = [feature for feature in network.shapes if feature.endswith("/preact")]
    assert pre == [f"{stage}/preact" for stage in network.shapes.stages]
    for feature in pre:
        assert (features[feature] < 0).any()
        assert torch.equal(features[feature].relu(), features[feature.removesuffix("/preact")])
    distil("ab", models.find("torchvision:resnet18", num_classes=5, size=64), network)


@pytest.mark.parametrize("name", ["torchvision:shufflenet_v2_x0_5", "torchvision:mobilenet_v2"])
def test_stages_that_end_in_no_activation_have_no_boundary(name: str) -> None:
    network = models.find(name, num_classes=5, size=64)
    with pytest.raises(ShapeError, match=r"no feature 'stage1/preact'.*name the maps"):
        distil("ab", network, models.find("resnet8", num_classes=5))
    distil("ofd", network, models.find("resnet8", num_classes=5))
