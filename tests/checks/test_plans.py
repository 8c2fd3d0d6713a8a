"""What the doctor says of all runs of a comparison or a search, and not of one alone."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted_faults import SMALL, findings
from tests.support.planted_teachers import clothes, distillation, marks, spoiled
from understudy.checks import costs
from understudy.checks.examine import examine
from understudy.checks.examined import Examined
from understudy.checks.plan import Plan
from understudy.comparison.planned import planned
from understudy.config.recipe import Recipe
from understudy.experiment.run_time import size_in_words
from understudy.tuning.planned import planned as planned_search

PLANTED = Counter(few_test_images=2, costs=2)
"""Faults planted below, by check."""

FEW: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "clothes": (
        clothes().keys,
        "The 100 test images are few: the standard error of an accuracy of 50 % is 5.0 points",
        {"source": "fashion"},
    ),
    "shapes": (
        {"source": "drawn_shapes", "root": "40"},
        " labels in 13 test images are few: the standard error of a share of 50 % of them is ",
        {"source": "drawn_shapes", "root": "1800"},
    ),
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(2, 1, [0, 1, 2], tmp_path)


@pytest.mark.parametrize("name", FEW)
def test_few_test_images_are_a_warning_before_a_comparison(name: str, plan: Plan) -> None:
    data, words, mended = FEW[name]
    task = "multilabel" if name == "shapes" else "classification"
    recipe = Recipe.load(SMALL, {"task": task, "data": data})
    (finding,) = findings(recipe, "few_test_images", plan=plan)
    assert words in finding.message
    assert finding.advice.startswith("Add images to the test split")
    assert not findings(recipe, "few_test_images"), "a single run tells no arms apart"
    more = Recipe.load(SMALL, {"task": task, "data": mended})
    assert not findings(more, "few_test_images", plan=plan)


def arms_of(folder: Path, plan: Plan, *, data: Any = clothes) -> list[Examined]:
    """Two arms, kd and pefd, of which the second has a projector to save."""
    recipe = Recipe.load(SMALL, distillation(data, spoiled(data, folder, "none")))
    first = Examined(recipe, device="cpu", short=True, out=folder, plan=plan)
    pefd = Recipe.load(recipe, {"methods": {"pefd": {}}})
    return [first, Examined(pefd, device="cpu", short=True, like=first, name="pefd")]


def test_all_runs_and_their_bank_count(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.checks.names", lambda: ["costs"])
    arms = arms_of(tmp_path, plan)
    examination = examine(*arms)
    assert examination.not_run == {}
    (note,) = (x.message for x in examination.findings if x.message.startswith("All in all"))
    kd, pefd = (costs.Cost.of(arm) for arm in arms)
    assert kd.bytes < pefd.bytes
    assert kd.seconds
    assert note.startswith("All in all 9 runs (2 arms and the control, 3 seeds each): about ")
    assert f"they write {size_in_words(3 * (kd.bytes + pefd.bytes) + 3 * kd.bytes)}" in note
    assert "if one follows the other" in note
    assert "and their bank takes up to " in note
    assert sum(x.check == "costs" and x.level == "error" for x in examination.findings) == 0


@pytest.mark.parametrize("data", [clothes, marks], ids=["clothes", "marks"])
def test_runs_that_do_not_fit_together_are_an_error(data: Any, tmp_path: Path) -> None:
    endless = planned(2, 1, range(10**12), tmp_path)
    (arm, _) = arms_of(tmp_path, endless, data=data)
    (finding,) = (x for x in costs.of_all([arm], endless, count=2) if x.level == "error")
    assert f"the disk of {tmp_path} has " in finding.message
    few = planned(2, 1, [0], tmp_path)
    assert not [x for x in costs.of_all([arm], few, count=2) if x.level == "error"]


def test_a_search_trains_most_trials_in_part(tmp_path: Path) -> None:
    recipe = Recipe.load(SMALL, {"training.epochs": 9})
    plan = planned_search(recipe, 2, 9, [7, 8], tmp_path)
    assert plan.words == "9 trials, most of them shortened, and 6 runs to judge"
    # Nine trials of one epoch, three of two more, one of six more; two arms judge by two seeds.
    assert plan.whole * 2 == pytest.approx((9 + 3 * 2 + 6) / 9 + 4)
    assert (plan.runs * 2, plan.controls) == (9 + 4, 2)
    still_open = Recipe.load({"student": {"name": "resnet8"}})
    assert planned_search(still_open, 2, 9, (), tmp_path).controls == 3
