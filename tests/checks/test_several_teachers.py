"""Of several teachers, each is judged by itself, and mended by its own keys."""

from pathlib import Path
from typing import Any

from tests.support.planted_faults import SMALL
from tests.support.planted_teachers import MEAN, OPTIONS, STD, clothes, distillation, spoiled
from tests.support.small_runs import CNN
from understudy.checks.examine import _Log
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.config.recipe import Recipe


def several(folder: Path) -> Recipe:
    """Return a recipe with a good teacher and one whose classes are reversed."""
    teachers: dict[str, Any] = {}
    for name, kind in (("good", "none"), ("bad", "reversed")):
        (folder / name).mkdir()
        teachers[name] = {
            "name": CNN,
            "weights": str(spoiled(clothes, folder / name, kind)),
            "options": OPTIONS,
            "mean": MEAN,
            "std": STD,
            "methods": {"kd": {}},
        }
    teachers["good"]["methods"]["pefd"] = {"weight": 0}
    content = distillation(clothes, Path("none"))
    kept = {key: x for key, x in content.items() if not key.startswith(("teacher", "methods"))}
    return Recipe.load(SMALL, kept | {"teachers": teachers})


def found_by(examined: Examined, *names: str) -> list[Finding]:
    log = _Log()
    log.examine(examined, names)
    assert not log.not_run, log.findings
    assert set(log.made) == set(names)
    return log.findings


def test_each_teacher_is_judged_and_mended_by_itself(tmp_path: Path) -> None:
    examined = Examined(several(tmp_path), device="cpu", short=True)
    judged = found_by(examined, "teacher_accuracy")
    (fault,) = [finding for finding in judged if finding.is_fault]
    assert fault.message.startswith("teacher bad: ")
    assert list(fault.fix) == ["teachers.bad.classes"]
    (note,) = [finding for finding in judged if "teacher good" in finding.message]
    assert note.level == "note"

    (few,) = found_by(examined, "few_test_images")
    assert "an accuracy of 50 %" not in few.message  # the good teacher's own is known

    assert len(examined.trial_at(0.01).losses) == len(examined.trial.losses)

    (fault,) = [finding for finding in found_by(examined, "losses") if finding.is_fault]
    assert list(fault.fix) == ["teachers.good.methods.pefd.weight"]

    seen = [finding.message for finding in found_by(examined, "network_inputs")]
    assert [message.partition(" sees")[0] for message in seen] == [
        "The student",
        "The teacher good",
        "The teacher bad",
    ]
