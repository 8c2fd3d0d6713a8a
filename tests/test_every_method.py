"""The contract that every shipped method keeps, over real networks of several widths."""

import inspect
import io
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from tests.vectors.build import Outputs
from understudy import methods, tasks
from understudy.batch import UNLABELLED, Batch, Mixed
from understudy.distillation.distiller import Distiller, Weight
from understudy.errors import RecipeError, ShapeError, UnderstudyError
from understudy.features import Features, Shapes
from understudy.methods import Method
from understudy.methods.fsp import FSP
from understudy.models.network import Network
from understudy.models.preprocessing import Input

CLASSES, SIDE = 5, 16
TEACHER = (6, 8, 10, 12)
STUDENTS = {"equal": TEACHER, "narrower": (4, 6, 8, 9), "wider": (8, 10, 12, 16)}
NEEDS_EQUAL_WIDTHS = (FSP,)


def network(widths: tuple[int, ...]) -> Network:
    """A real network: one convolution for each resolution, pooled, and a classifier."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(zip((3, *widths), widths, strict=False)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=1 if number == 0 else 2, padding=1)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))
    taps = {f"stage{number}/preact": f"{number}.2:input" for number in range(1, len(widths))}
    taps |= {"p3": "1", "p3/scores": "1"}
    taps["dist_logits"] = f"{len(widths) + 2}"
    return Network(nn.Sequential(*layers, *head), input=Input(size=SIDE), taps=taps)


def images(count: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=random)
    return Batch.of(torch.rand(count, 3, SIDE, SIDE, generator=random), labels)


@dataclass
class Pair:
    """A method between a student and a frozen teacher, both real networks."""

    student: Network
    teacher: Network
    method: Method

    def images(self, count: int) -> Batch:
        """Images of which the teacher classifies at least every second one correctly."""
        batch = images(count)
        predicted = self.features(batch)[1]["logits"].argmax(1)
        labels = torch.where(torch.arange(count) % 2 == 0, predicted, batch.labels)
        return replace(batch, labels=labels)

    def features(self, batch: Batch) -> tuple[Features, Features]:
        with torch.no_grad():
            return self.student.features(batch.images), self.teacher.features(batch.images)

    def loss(self, batch: Batch) -> Tensor:
        loss: Tensor = self.method(*self.features(batch), batch)
        return loss


def training_set(teacher: Network) -> Outputs:
    batch = images(40, seed=1)
    with torch.no_grad():
        features = teacher.features(batch.images)
    return Outputs(features, batch.labels, teacher.classifier_weight, teacher.classifier_bias)


def pair(
    cls: type[Method], widths: tuple[int, ...], *, seed: int = 0, prepare: bool = True
) -> Pair:
    torch.manual_seed(seed)
    student, teacher = network(widths).eval(), network(TEACHER).eval()
    cls.extend(student, teacher.shapes)
    built = Pair(student, teacher, cls(student.shapes, teacher.shapes))
    if prepare:
        built.method.prepare(training_set(teacher))
    return built


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=methods.names())
def cls(request: pytest.FixtureRequest) -> type[Method]:
    return methods.find(request.param)


PAIRS = [
    (name, student)
    for name in methods.names()
    for student in STUDENTS
    if student == "equal" or methods.find(name) not in NEEDS_EQUAL_WIDTHS
]
"""Methods, and the students that they can teach."""


@cache
def prepared(name: str, student: str) -> Pair:
    return pair(methods.find(name), STUDENTS[student])


@pytest.fixture(params=PAIRS, ids="-".join)
def made(request: pytest.FixtureRequest) -> Pair:
    # Measuring a teacher takes ten times as long as copying what was measured.
    return deepcopy(prepared(*request.param))


@pytest.mark.parametrize("cls", NEEDS_EQUAL_WIDTHS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("student", ["narrower", "wider"])
def test_refuses_other_widths_if_it_needs_equal_ones(cls: type[Method], student: str) -> None:
    with pytest.raises(ShapeError, match="equal channels"):
        pair(cls, STUDENTS[student])


def assert_loss(loss: Tensor) -> None:
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_gives_a_finite_float32_scalar(made: Pair) -> None:
    batch = made.images(8)
    features = made.features(batch)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        student, teacher = ({k: x.to(dtype) for k, x in f.items()} for f in features)
        assert_loss(deepcopy(made.method)(student, teacher, batch))


def test_is_not_touched_by_autocast(made: Pair) -> None:
    batch = made.images(8)
    features = made.features(batch)
    made.method.eval()
    plain = made.method(*features, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made.method(*features, batch)
    assert_loss(loss)
    assert torch.equal(loss, plain)


def test_gradient_reaches_student_and_own_parameters_but_not_the_teacher(made: Pair) -> None:
    batch = made.images(8)
    student, teacher = (
        {k: x.clone().requires_grad_() for k, x in f.items()} for f in made.features(batch)
    )
    made.method(student, teacher, batch).backward()
    reached = [x.grad for x in student.values() if x.grad is not None]
    assert any(grad.any() for grad in reached)
    assert all(grad.isfinite().all() for grad in reached)
    for name, parameter in made.method.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.isfinite().all()
    assert all(x.grad is None for x in teacher.values())
    scores = any(student[name].grad is not None for name in ("logits", "dist_logits"))
    assert scores == made.method.trains_classifier


def test_order_of_the_batch_is_irrelevant(made: Pair) -> None:
    batch = made.images(8)
    order = torch.randperm(8)
    made.method.eval()
    close(made.loss(batch[order]), made.loss(batch))


@pytest.mark.parametrize(
    "made",
    # The others are refused with the recipe, which has a test of its own.
    [each for each in PAIRS if not methods.find(each[0]).requires_hard_labels],
    ids="-".join,
    indirect=True,
)
def test_mixed_images_teach_in_any_order(made: Pair) -> None:
    batch = made.images(8)
    mixed = Mixed(batch.labels.flip(0), torch.full((8,), 0.3))
    batch = replace(batch, mixed=mixed, smoothing=0.1)
    made.method.eval()
    loss = made.loss(batch)
    assert_loss(loss)
    close(made.loss(batch[torch.randperm(8)]), loss)
    missing = replace(batch, mixed=replace(mixed, labels=torch.full((8,), UNLABELLED)))
    assert_loss(made.loss(missing))


@pytest.mark.parametrize("training", [True, False])
def test_batch_of_one_works(made: Pair, training: bool) -> None:
    made.method.train(training)
    assert_loss(made.loss(made.images(1)))
    assert all(x.isfinite().all() for x in made.method.state_dict().values())


def test_empty_batch_gives_zero(made: Pair) -> None:
    student, teacher = made.features(made.images(8))
    empty = {k: x[:0].requires_grad_() for k, x in student.items()}
    batch = Batch.of(torch.zeros(0, 3, SIDE, SIDE), torch.zeros(0, dtype=torch.long))
    loss = made.method(empty, {k: x[:0] for k, x in teacher.items()}, batch)
    loss.backward()
    assert loss == 0
    assert all(x.isfinite().all() for x in made.method.state_dict().values())


def test_zero_rows_are_harmless(made: Pair) -> None:
    batch = made.images(8)
    for zero in ({"student"}, {"teacher"}, {"student", "teacher"}):
        student, teacher = made.features(batch)
        for name, features in (("student", student), ("teacher", teacher)):
            for x in features.values() if name in zero else ():
                x[:3] = 0
        leaves = {k: x.requires_grad_() for k, x in student.items()}
        loss = deepcopy(made.method)(leaves, teacher, batch)
        loss.backward()
        assert_loss(loss)
        grads = [x.grad for x in leaves.values() if x.grad is not None]
        # Dividing by a clamped norm would give 1e6 and more; relations between the nearly equal
        # features of untrained networks give some thousands by themselves.
        assert all(grad.abs().max() < 1e4 for grad in grads), f"zero rows of {zero}"


def test_batch_without_labels_teaches(made: Pair) -> None:
    batch = made.images(8)
    batch = replace(batch, labels=torch.full_like(batch.labels, UNLABELLED))
    student, teacher = made.features(batch)
    leaves = {k: x.requires_grad_() for k, x in student.items()}
    loss = made.method(leaves, teacher, batch)
    loss.backward()
    assert_loss(loss)
    assert any(x.grad is not None and x.grad.any() for x in leaves.values())


def test_teaches_without_any_task(made: Pair) -> None:
    methods_by_name, weights = {"m": made.method}, {"m": Weight(1.0)}
    distiller = Distiller(
        made.student, {"": made.teacher}, methods_by_name, tasks.find("none"), weights
    )
    losses = distiller(made.images(8).images)
    assert set(losses) == {"m"}
    distiller.total(losses).backward()
    assert any(p.grad is not None and p.grad.any() for p in made.student.parameters())


USED_BY_PREPARE = {"SimKD": {"penultimate"}}
"""Features that a method reads before training alone."""


def test_reads_names_what_the_loss_uses_and_no_more(made: Pair) -> None:
    batch = made.images(8)
    student, teacher = made.features(batch)
    named = {name: teacher[name] for name in made.method.reads}
    torch.manual_seed(0)  # of dropout and negatives
    expected = deepcopy(made.method)(student, teacher, batch)
    torch.manual_seed(0)
    assert torch.equal(deepcopy(made.method)(student, named, batch), expected)
    for name in set(named) - USED_BY_PREPARE.get(type(made.method).__name__, set()):
        others = {other: x for other, x in named.items() if other != name}
        with pytest.raises(KeyError):
            deepcopy(made.method)(student, others, batch)


def test_state_makes_a_round_trip_with_what_was_prepared(made: Pair) -> None:
    stored = io.BytesIO()
    torch.save(made.method.state_dict(), stored)
    stored.seek(0)
    torch.manual_seed(99)
    again = type(made.method)(made.student.shapes, made.teacher.shapes)
    again.load_state_dict(torch.load(stored, weights_only=True))
    again.eval()
    made.method.eval()
    batch = made.images(8)
    assert torch.equal(again(*made.features(batch), batch), made.loss(batch))


def test_preparing_again_changes_nothing(made: Pair) -> None:
    before = {k: x.clone() for k, x in made.method.state_dict().items()}
    made.method.prepare(training_set(made.teacher))
    after = made.method.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_refuses_to_work_unprepared(cls: type[Method]) -> None:
    made = pair(cls, TEACHER, prepare=False)
    if made.method.prepared:
        assert_loss(made.loss(made.images(8)))
    else:
        with pytest.raises(UnderstudyError, match="prepare"):
            made.loss(made.images(8))


def test_same_seed_gives_the_same_number(cls: type[Method]) -> None:
    widths = STUDENTS["equal" if cls in NEEDS_EQUAL_WIDTHS else "narrower"]
    first, second = (pair(cls, widths, seed=7) for _ in range(2))
    torch.manual_seed(1)
    loss = first.loss(first.images(8))
    torch.manual_seed(1)
    assert torch.equal(second.loss(second.images(8)), loss)


def test_refuses_missing_features_at_construction(cls: type[Method]) -> None:
    useless = Shapes("This network", {"nothing": (3,)})
    with pytest.raises(ShapeError, match="This network"):
        cls(useless, useless)


def test_refuses_features_of_a_wrong_form_at_construction(cls: type[Method]) -> None:
    made = pair(cls, TEACHER)
    shapes = made.student.shapes
    # Every vector turned into a map, every map into a vector.
    turned = Shapes("odd", {k: (8, 4, 4) if len(s) == 1 else (8,) for k, s in shapes.items()})
    with pytest.raises(ShapeError, match="odd"):
        cls(turned, made.teacher.shapes)


def test_refuses_choices_that_do_not_exist(cls: type[Method]) -> None:
    shapes = pair(cls, TEACHER).student.shapes
    for name, hint in get_type_hints(cls.__init__).items():
        if get_origin(hint) is Literal:
            (first, *_) = get_args(hint)
            with pytest.raises(RecipeError, match=f"did you mean '{first}'"):
                cls(shapes, shapes, **{name: f"{first}x"})


def test_compiles_as_one_graph(cls: type[Method]) -> None:
    # With a projector wherever there is one; of other widths the graph is the same.
    made = pair(cls, STUDENTS["equal" if cls in NEEDS_EQUAL_WIDTHS else "narrower"])
    batch = made.images(8)
    features = made.features(batch)
    made.method.eval()
    torch.compiler.reset()
    compiled = torch.compile(made.method, fullgraph=True, backend="eager")
    close(compiled(*features, batch), made.method(*features, batch))


def test_documents_its_source_and_its_equation(cls: type[Method]) -> None:
    text = inspect.getdoc(sys.modules[cls.__module__]) or ""
    assert "arXiv" in text
    assert any(line.startswith("    L ") and "=" in line for line in text.splitlines())


def test_is_final_with_documented_keyword_hyper_parameters(cls: type[Method]) -> None:
    if sys.version_info >= (3, 11):  # Before, `final` left no trace.
        assert getattr(cls, "__final__", False)
    (_, student, teacher, *hyper) = inspect.signature(cls.__init__).parameters.values()
    assert (student.name, teacher.name) == ("student", "teacher")
    for parameter in hyper:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert f"    {parameter.name}: " in (cls.__doc__ or "")
