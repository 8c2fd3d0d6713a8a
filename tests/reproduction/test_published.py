"""What is said of a measured figure beside a published one, and when nothing is."""

import pytest

from understudy.config import tables
from understudy.config.recipe import Recipe
from understudy.config.tables import About
from understudy.reproduction.published import Published, changes, judged, other_protocol, protocol


def published(text: str) -> Published:
    return Published.of(About(published=text), distilled=True)


@pytest.mark.parametrize(
    ("text", "scores", "mark", "reason"),
    [
        ("70.00 ± 0.20", [70.4], "within 2 sd", "0.40 apart, sd 0.20 (published)"),
        ("70.00 ± 0.20", [70.41], "outside 2 sd", "0.41 apart, sd 0.20 (published)"),
        ("70.00 ± 0.20", [69.0], "outside 2 sd", "1.00 apart, sd 0.20 (published)"),
        ("70.00", [70.0, 70.2, 70.4], "within 2 sd", "0.20 apart, sd 0.20 (ours)"),
        ("70.00", [70.5, 70.6, 70.7], "outside 2 sd", "0.60 apart, sd 0.10 (ours)"),
        ("70.00 ± 0.20", [69.4, 69.6, 69.8], "within 2 sd", "0.40 apart, sd 0.20 (both)"),
        ("70.00", [70.0], "cannot be said", "one seed, and no published deviation"),
        ("70.00", [70.0, 70.0], "cannot be said", "2 seeds, and no published deviation"),
        ("70.00 ± 0.20", [], "cannot be said", "not run"),
        ("", [70.0], "cannot be said", "no published figure"),
    ],
)
def test_marks(text: str, scores: list[float], mark: str, reason: str) -> None:
    judgement = judged(published(text), scores, {})
    assert (judgement.mark, judgement.reason) == (mark, reason)


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("training.epochs", 60, True),
        ("training.batch", 128, True),
        ("data.images", 1000, True),
        ("methods.kd.weight", 1.0, True),
        ("training.precision", "bf16", False),
        ("training.evaluate_every", 10, False),
    ],
)
def test_nothing_is_said_of_another_protocol(key: str, value: object, other: bool) -> None:
    name = "cifar100/kd/resnet56_resnet20"
    shipped = Recipe.load(name)
    changed = changes(shipped, Recipe.load(name, {key: value}))
    assert list(changed) == [key]
    assert changed[key][1] == value
    judgement = judged(published("70.66 ± 0.1"), [70.66], changed)
    assert judgement.mark == ("cannot be said" if other else "within 2 sd")
    assert other_protocol(changed) == [key] * other


def test_folders_and_seeds_are_no_difference() -> None:
    name = "cifar100/kd/resnet56_resnet20"
    same = {"data.root": "x", "seed": 3, "teacher.weights": "y", "bank.path": "z"}
    assert changes(Recipe.load(name), Recipe.load(name, same)) == {}


def test_every_published_figure_is_read() -> None:
    for name in tables.shipped():
        about = tables.about(name)
        figure = Published.of(about, distilled=bool(Recipe.load(name).methods))
        assert (figure.figure is not None) == bool(figure.text), name
    letkd = Published.of(tables.about("cifar100/letkd1/resnet56_resnet20"), distilled=True)
    assert (letkd.figure, letkd.deviation, letkd.runs) == (72.44, 0.24, "5")
    alone = Published.of(tables.about("cifar100/pairs/resnet56_resnet20"), distilled=False)
    assert alone.figure == 69.06


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar100/kd", "step at 150, 180, 210; last epoch; runs not stated"),
        ("cifar100/kd++", "240 epochs, batch 128, lr 0.1, step at 150, 180, 210; best epoch; "),
        ("cifar100/letkd1", "; epoch not stated; mean of 5 runs"),
        ("cifar100/dkd", "; epoch not stated; runs not stated"),
    ],
)
def test_the_protocol_of_a_figure(name: str, words: str) -> None:
    row = f"{name}/resnet56_resnet20"
    figure = Published.of(tables.about(row), distilled=True)
    assert words in protocol(Recipe.load(row), figure)
