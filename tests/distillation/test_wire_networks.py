"""Which modules can be student and teacher of a loop of one's own, and how they are kept."""

from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.distillation.small_networks import images, network, pair
from understudy.distillation.wire import wire
from understudy.errors import NetworkError, RecipeError

EXAMPLE = images(4, 3, 16, 16)
LABELS = torch.arange(4)


@pytest.mark.parametrize("compiled", ["student", "teacher"])
def test_a_compiled_network_is_refused_with_the_way_to_compile(compiled: str) -> None:
    modules: dict[str, Any] = dict(zip(("student", "teacher"), pair(), strict=True))
    modules[compiled] = torch.compile(modules[compiled])
    with pytest.raises(NetworkError, match=r"is compiled.*`distiller.trainable.compile\(\)`"):
        wire(**modules, methods={"kd": 1}, example=EXAMPLE)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_or_parallel_part_is_refused_as_well() -> None:
    student, teacher = pair()
    nested = nn.Sequential(torch.compile(student[:-1]), student[-1])  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="its part '0' is compiled"):
        wire(nested, teacher, {"kd": 1}, example=EXAMPLE)
    in_place = network()
    in_place.compile()
    with pytest.raises(NetworkError, match="the student is compiled"):
        wire(in_place, teacher, {"kd": 1}, example=EXAMPLE)
    with pytest.raises(NetworkError, match="is a DataParallel"):
        wire(nn.DataParallel(student), teacher, {"kd": 1}, example=EXAMPLE)
    with pytest.raises(NetworkError, match="is a TorchScript module"):
        wire(student, torch.jit.trace(teacher, EXAMPLE), {"kd": 1}, example=EXAMPLE)


def test_one_module_cannot_be_student_and_teacher() -> None:
    net = network()
    with pytest.raises(NetworkError, match=r"are one module .*copy.deepcopy"):
        wire(net, net, {"kd": 1}, example=EXAMPLE)
    assert all(p.requires_grad for p in net.parameters())
    wire(net, deepcopy(net), {"kd": 1}, example=EXAMPLE)


def test_a_shared_part_is_refused_before_it_is_frozen() -> None:
    student, other = pair()
    teacher = nn.Sequential(*student[:-1], other[-1])
    with pytest.raises(NetworkError, match=r"share 6 of its parameters \(0.weight"):
        wire(student, teacher, {"kd": 1}, example=EXAMPLE)
    assert all(p.requires_grad for p in student.parameters())
    teacher = deepcopy(teacher)
    teacher[0].weight = nn.Parameter(student[0].weight.detach())  # the same memory
    with pytest.raises(NetworkError, match="share 1 of its parameters"):
        wire(student, teacher, {"kd": 1}, example=EXAMPLE)


@pytest.mark.parametrize("teacher", [None, "resnet50", {"state": 1}])
def test_a_teacher_must_be_a_module(teacher: Any) -> None:
    with pytest.raises(NetworkError, match=r"The teacher is .*: give a torch module to learn from"):
        wire(network(), teacher, {"kd": 1}, example=EXAMPLE)


def test_without_methods_no_teacher_is_needed() -> None:
    losses = wire(network(), None, {}, example=EXAMPLE)(EXAMPLE, LABELS)
    assert list(losses) == ["task"]


class Whole(nn.Module):
    """A module that also holds the teacher, and sets its mode every epoch."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.distiller = wire(
            student, teacher, {"kd": 1, "fitnet": {"feature": "stage1"}}, example=EXAMPLE
        )


def test_the_teacher_evaluates_whatever_mode_the_loop_left_it_in() -> None:
    student, teacher = pair()
    whole = Whole(student, teacher)
    before, statistics = whole.distiller(EXAMPLE, LABELS), deepcopy(teacher[1].state_dict())
    whole.train()
    teacher[1].train()
    assert whole.distiller(EXAMPLE, LABELS) == before
    teacher.train()
    assert whole.distiller.teacher is not None
    whole.distiller.prepare([(EXAMPLE, LABELS)])
    assert all(torch.equal(x, statistics[name]) for name, x in teacher[1].state_dict().items())


def test_a_teacher_of_nan_is_named_as_the_cause() -> None:
    student, teacher = pair()
    with torch.no_grad():
        teacher[-1].weight[0, 0] = torch.nan
    with pytest.raises(NetworkError, match=r"NaN or infinity in 7.weight.*check teacher.weights"):
        wire(student, teacher, {"kd": 1}, example=EXAMPLE)
    student, teacher = pair()
    teacher[1].running_var.fill_(torch.inf)
    with pytest.raises(NetworkError, match=r"infinity in 1\.running_var"):
        wire(student, teacher, {"kd": 1}, example=EXAMPLE)


class OneNumber(nn.Module):
    """A network that gives a number for each image, or one for all of them."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.body, self.dims = network(classes=1), dims

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x).mean(self.dims)
        return y


@pytest.mark.parametrize(
    ("dims", "shape"), [((1,), r"\(2,\)"), ((0, 1), r"\(\)"), ((0,), r"\(1,\)")]
)
def test_outputs_must_be_one_row_for_each_image(dims: tuple[int, ...], shape: str) -> None:
    with pytest.raises(NetworkError, match=f"a tensor of shape {shape} for 2 images.*classes"):
        wire(network(), OneNumber(dims), {"kd": 1}, example=EXAMPLE)


@pytest.mark.parametrize(
    ("choice", "shown"),
    [("fc", "'fc'"), ({"penultimate": "pool"}, "'penultimate'"), (["teacher"], r"\['teacher'\]")],
)
def test_choices_for_no_network_are_refused(choice: Any, shown: str) -> None:
    with pytest.raises(NetworkError, match=rf"'classifier' of wire is by network.*not {shown}\."):
        wire(*pair(), {"kd": 1}, example=EXAMPLE, classifier=choice)


@pytest.mark.parametrize("methods", [["kd"], "kd", None])
def test_methods_that_are_no_mapping_are_refused(methods: Any) -> None:
    with pytest.raises(RecipeError, match="it must be a mapping from names to weights"):
        wire(*pair(), methods, example=EXAMPLE)


class Named(NamedTuple):
    aux: Tensor
    logits: Tensor


class MoreInTraining(nn.Module):
    """Returns its logits in evaluation, and in training something before or beside them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        *body, self.head = network()
        self.body, self.form = nn.Sequential(*body), form
        self.logits = torch.empty(0)

    def forward(self, x: Tensor) -> Any:
        feature = self.body(x)
        self.logits = self.head(feature)
        forms = {
            "feature first": (feature, self.logits),
            "loss first": (self.logits.mean(), self.logits),
            "auxiliary last": (self.logits, 2 * self.logits),
            "auxiliary first": (2 * self.logits, self.logits),
            "auxiliary twice": [(2 * self.logits, 3 * self.logits), self.logits.view(-1, 4)],
            "named": {"aux": 2 * self.logits, "logits": self.logits},
            "not named": {"aux": 2 * self.logits, "main": self.logits},
            "a named field": Named(2 * self.logits, 1 * self.logits),
            "computed, a tuple": (2 * self.logits, 1 * self.logits),
            "computed, not named": {"aux": 2 * self.logits, "main": 1 * self.logits},
        }
        return forms[self.form] if self.training else self.logits


@pytest.mark.parametrize(
    "form",
    [
        *("feature first", "loss first", "auxiliary last", "auxiliary first", "auxiliary twice"),
        *("named", "not named", "a named field"),
    ],
)
def test_logits_are_found_in_what_a_network_returns_in_training(form: str) -> None:
    student = MoreInTraining(form)
    distiller = wire(student, network(), {"kd": 1}, example=EXAMPLE).train()
    loss = distiller(EXAMPLE, LABELS)["task"]
    assert torch.allclose(loss, nn.functional.cross_entropy(student.logits, LABELS))


class OfTwoTokens(nn.Module):
    """Classifies by two heads: gives their mean in evaluation, and in training more."""

    def __init__(self, form: str) -> None:
        super().__init__()
        *body, _ = network()
        self.body, self.form = nn.Sequential(*body), form
        self.head, self.head_dist = nn.Linear(16, 4), nn.Linear(16, 4)
        self.logits = torch.empty(0)

    def forward(self, x: Tensor) -> Any:
        feature = self.body(x)
        first, second = self.head(feature), self.head_dist(feature)
        mean = (first + second) / 2
        if self.form == "a dictionary":
            self.logits = mean
            return {"first": first, "logits": mean, "second": second}
        self.logits = first
        return (first, second) if self.training else mean


@pytest.mark.parametrize("form", ["a dictionary", "a tuple in training"])
def test_of_two_heads_the_logits_are_their_mean_or_those_of_the_first(form: str) -> None:
    student = OfTwoTokens(form)
    distiller = wire(student, network(), {"kd": 1}, example=EXAMPLE).train()
    loss = distiller(EXAMPLE, LABELS)["task"]
    assert torch.allclose(loss, nn.functional.cross_entropy(student.logits, LABELS))


@pytest.mark.parametrize(
    ("form", "names"), [("computed, not named", "aux, main"), ("computed, a tuple", "0, 1")]
)
def test_auxiliary_logits_in_training_are_not_taken_for_logits(form: str, names: str) -> None:
    distiller = wire(MoreInTraining(form), network(), {"kd": 1}, example=EXAMPLE).train()
    with pytest.raises(NetworkError, match=rf"In training .* which are the logits: {names}"):
        distiller(EXAMPLE, LABELS)
