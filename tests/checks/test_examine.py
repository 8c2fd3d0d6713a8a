"""An examination: which checks it makes, what it does with errors, and how it is kept."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import understudy
from tests.support.planted_faults import SMALL
from tests.support.small_images import CLOTHES
from tests.support.small_runs import CNN
from understudy import checks
from understudy.checks.examine import Examination, _of_arms, examine
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.checks.loading import Speed, faster
from understudy.checks.messages import kept, unrepeated
from understudy.config.recipe import Recipe
from understudy.errors import RunError

FACTS = {"classes", "labels", "skipped", "picture_sizes"}
"""Checks that train nothing, for tests of the frame."""


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Examinations make some checks only."""

    def names_of(*names: str) -> None:
        monkeypatch.setattr(checks, "names", lambda: sorted(names))

    return names_of


def small(**keys: object) -> Recipe:
    return Recipe.load(SMALL, {"data.source": "folder", "data.root": CLOTHES} | keys)


def test_every_check_says_what_it_is() -> None:
    assert set(checks.names()) > FACTS
    for name in checks.names():
        check = checks.find(name)
        assert isinstance(check.SHORT, bool)
        assert isinstance(check.OF_METHODS, bool)
        assert check.SECONDS > 0
        assert name in Path("docs/doctor.md").read_text(), f"docs/doctor.md has no {name}"


def test_it_leaves_random_numbers_and_threads_alone(only: Callable[..., None]) -> None:
    only("costs")
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    examination = understudy.doctor(small(), device="cpu", short=True)
    assert examination.checks == ("costs",)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_what_cannot_be_built_is_one_error(only: Callable[..., None]) -> None:
    only("picture_sizes", "costs", "classes")
    examination = understudy.doctor(small(**{"student.name": "resnet7"}), device="cpu")
    (error,) = examination.of("error")
    assert error.check == "networks"
    assert "resnet7" in error.message
    assert examination.checks == ("classes",)
    assert set(examination.not_run) == {"picture_sizes", "costs"}
    assert examination.headline.startswith("doctor: 1 error, 1 check in ")
    lines = [line for line in examination.lines() if line.startswith("not examined")]
    assert lines == ["not examined: picture_sizes, costs (an error prevents this)"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("nothing"), "internal error, KeyError"),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory ran out"),
    ],
)
def test_a_check_that_fails_is_reported(
    only: Callable[..., None], monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def broken(examined: Examined) -> Iterator[Finding]:
        raise error
        yield

    only("classes", "labels")
    find = checks.find
    other = SimpleNamespace(SHORT=True, OF_METHODS=False, SECONDS=1, check=broken)
    monkeypatch.setattr(checks, "find", lambda name: other if name == "labels" else find(name))
    examination = examine(Examined(small(), device="cpu"))
    assert examination.checks == ("classes",)
    assert words in examination.not_run["labels"]
    assert "1 not made" in examination.headline


def test_time_that_is_over_is_said(only: Callable[..., None]) -> None:
    only("classes")
    examination = examine(Examined(small(), device="cpu", seconds=1e-9))
    assert "were over" in examination.not_run["classes"]


def test_what_was_not_examined_is_one_line_of_all_arms(only: Callable[..., None]) -> None:
    only("costs", "losses", "classes")
    first = Examined(small(), device="cpu", short=True, seconds=1e-9)
    others = {"like": first, "device": "cpu", "short": True, "seconds": 1e-9}
    arms = [Examined(small(), name=name, **others) for name in ("pefd", "nd")]
    (line,) = examine(first, *arms).not_made()
    assert line.startswith("not examined: classes, losses, costs; ")
    assert "of pefd and nd: losses and costs (the 0 seconds were over)" in line
    assert "`understudy doctor`" in line
    assert _of_arms(["a x", "b x", "c x", "d x", "e x"]) == "of a, b, c and 2 more: x"


def test_it_is_read_as_it_was_written(tmp_path: Path, only: Callable[..., None]) -> None:
    only(*FACTS)
    examination = understudy.doctor(small(**{"data.labels": 20}), device="cpu")
    (warning,) = examination.of("warning")
    assert str(warning).endswith("Fix: --data.labels 100 [classes]")
    examination.write(tmp_path)
    assert Examination.read(tmp_path) == examination
    assert Examination.read(tmp_path / "elsewhere") is None
    (tmp_path / "doctor.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        Examination.read(tmp_path)


def test_an_arm_is_named_where_it_differs(only: Callable[..., None], teacher: Path) -> None:
    only("classes", "costs")
    recipe = small(**{"teacher.weights": str(teacher), "methods.kd": {}})
    first = Examined(recipe, device="cpu", short=True)
    arm = Examined(
        # Its projectors are saved too, so that the directory of a run is larger.
        Recipe.load(recipe, {"methods": {"pefd": {"projectors": 12}}}),
        like=first,
        name="pefd",
        device="cpu",
        short=True,
    )
    lines = list(examine(first, arm).lines())
    assert sum("[classes]" in line for line in lines) == 1
    assert any(line.startswith("note: pefd: A run takes") for line in lines)


def test_a_warning_of_the_library_is_a_finding_and_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger, warnings = logging.getLogger("understudy"), list[str]()
    with kept(warnings, silent=True):
        logger.warning("The teacher is asleep.")
        logger.warning("The teacher is asleep.")
        logger.info("Nothing.")
    assert warnings == ["The teacher is asleep."]
    assert not caplog.records
    with unrepeated(warnings):
        logger.warning("The teacher is asleep.")
        logger.warning("The student is asleep.")
        logger.warning("The student is asleep.")
        logger.warning("Teacher dino fails 3 of 9.", extra={"subject": "teacher dino"})
        logger.warning("Teacher dino fails 4 of 9.", extra={"subject": "teacher dino"})
        logger.warning("Teacher siglip fails 4 of 9.", extra={"subject": "teacher siglip"})
    logger.warning("The student is asleep.")
    assert [record.getMessage() for record in caplog.records] == [
        "The student is asleep.",
        "Teacher dino fails 3 of 9.",
        "Teacher siglip fails 4 of 9.",
        "The student is asleep.",
    ]


@pytest.mark.parametrize(
    ("speed", "can_decode", "fix"),
    [
        # A GPU that waits for one process: step, images, decoding, workers, cores, threads.
        (Speed(1.0, 0.9, 0.8, 0, 8, 0), True, {"data.workers": 8}),
        # Eight workers are not enough, and are all the cores there are.
        (Speed(1.0, 1.0, 7.2, 8, 8, 0), True, {"data.decoded": "runs/decoded"}),
        (Speed(1.0, 1.0, 7.2, 8, 8, 0), False, {}),
        # A CPU whose cores the step needs itself: decoding once helps, workers do not.
        (Speed(1.0, 0.6, 0.55, 0, 1, 1), True, {"data.decoded": "runs/decoded"}),
        # Images are fast enough.
        (Speed(1.0, 0.1, 0.05, 0, 8, 0), True, {}),
        (Speed(1.0, 0.2, 0.2, 0, 2, 2), True, {}),
    ],
)
def test_the_fix_of_slow_images_makes_a_step_faster(
    speed: Speed, can_decode: bool, fix: dict[str, object]
) -> None:
    chosen, seconds = faster(speed, can_decode=can_decode)
    assert chosen == fix
    assert seconds < speed.step / 1.3 if fix else seconds == speed.step


def test_flags_are_words_of_a_shell() -> None:
    finding = Finding("x", "warning", "Slow.", {"data.root": "my data", "training.ema": None})
    assert finding.flags == "--data.root 'my data' --training.ema null"
    assert CNN not in str(finding)
