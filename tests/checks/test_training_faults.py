"""Faults of losses, schedules and batches, each in two data sets or tasks: found and mended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted_faults import (
    SMALL,
    Fault,
    assert_found_and_mended,
    findings,
    recipe_of,
)
from tests.support.planted_teachers import (
    DataSetMaker,
    clothes,
    distillation,
    marks,
    signs,
    spoiled,
)
from tests.support.small_runs import CNN
from understudy import checks
from understudy.checks.examined import Examined
from understudy.config.recipe import Recipe

NORMED = {"name": CNN, "options": {"norm": True}}
"""A student with batch normalisation."""


def trained(dataset: DataSetMaker, **training: Any) -> Callable[[Path], Any]:
    """A distillation with keys of training."""
    keys = {f"training.{key}": value for key, value in training.items()}
    return lambda folder: {
        **distillation(dataset, spoiled(dataset, folder, "none")),
        "student": NORMED,
        **keys,
    }


def weighted(dataset: DataSetMaker, methods: dict[str, Any], **keys: Any) -> Callable[[Path], Any]:
    """A distillation by methods with weights."""
    return lambda folder: {
        **distillation(dataset, spoiled(dataset, folder, "none")),
        "methods": methods,
        **keys,
    }


STEPS = [
    *(
        Fault(
            f"schedule of 240 epochs, {data.__name__}",
            "schedule",
            trained(data, schedule="step"),
            ["The learning rate never falls: the milestones 150, 180, 210"],
            {"training.schedule": "cosine"},
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"warm-up of 5 epochs, {data.__name__}",
            "schedule",
            trained(data, warmup_epochs=5.0),
            ["rises over 5 epochs, but there are 4"],
            {"training.warmup_epochs": 0.4},
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"{steps} steps in all, {data.__name__}",
            "schedule",
            trained(data, batch=120, epochs=2),
            [f"The run has {steps} optimizer steps in all", "near chance"],
            {"training.epochs": epochs},
        )
        for data, steps, epochs in ((clothes, 10, 10), (marks, 4, 25))
    ),
    *(
        Fault(
            f"batches of 4, {data.__name__}",
            "tiny_batches",
            trained(data, batch=4),
            ["normalises over 4 images", "below 8"],
            {"training.batch": 8},
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"16 parts of a step, {data.__name__}",
            "tiny_batches",
            trained(data, batch=32, accumulate=16),
            ["normalises over 2 images (batches of 32, each in 16 parts)"],
            {"training.accumulate": 4},
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"last batch of {last}, {data.__name__}",
            "tiny_batches",
            trained(data, batch=batch),
            [f"The last batch of an epoch has {last} images"],
            {"training.drop_last": True},
        )
        for data, batch, last in ((clothes, 46, 2), (marks, 79, 3))
    ),
]

MEASURED = [
    *(
        Fault(
            f"weight of {weight:g}, {data.__name__}",
            "losses",
            weighted(data, {"pefd": {"weight": weight}}),
            [words],
            {"methods.pefd.weight": ...},
        )
        for data in (clothes, marks)
        for weight, words in (
            (0.0, "The weight of pefd is 0"),
            (1e-7, "With its weight of 1e-07, the gradient of pefd is"),
            (1e7, "the loss on labels, which changes next to nothing"),
        )
    ),
    *(
        Fault(
            f"rate of 1000, {data.__name__}",
            "divergence",
            trained(data, lr=1000.0),
            ["With training.lr 1000 in fp32", "is not finite in step", "the loss does not grow"],
            {"training.lr": ...},
            level="error",
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"rate of 1000, {name} without labels, {data.__name__}",
            "divergence",
            weighted(
                data, {name: {}}, **{"task": "none", "student": NORMED, "training.lr": 1000.0}
            ),
            ["With training.lr 1000 in fp32, "],
            {"training.lr": ...},
            level="error",
        )
        for data, name in ((signs, "pefd"), (marks, "rkd"), (signs, "at"))
    ),
    Fault(
        "rate of 1000, pefd",
        "divergence",
        weighted(signs, {"pefd": {}}, **{"training.lr": 1000.0}),
        ["With training.lr 1000 in fp32"],
        {"training.lr": ...},
        level="error",
    ),
]
"""Faults of which the value that mends them is measured, and differs between machines."""

ADVISED = [
    *(
        Fault(
            f"only the classifier trained, {data.__name__}",
            "losses",
            weighted(data, {"pefd": {}}, **{"training.only": ["fc.*"]}),
            ["The loss of pefd is", "no gradient on the student: it is constant"],
        )
        for data in (clothes, marks)
    ),
]
"""Faults that no flag mends."""


@pytest.mark.parametrize("fault", [*STEPS, *ADVISED], ids=str)
def test_a_planted_fault_is_found_with_the_fix_that_mends_it(fault: Fault, tmp_path: Path) -> None:
    assert_found_and_mended(fault, tmp_path)


@pytest.mark.parametrize("fault", MEASURED, ids=str)
def test_a_fault_is_mended_by_a_value_that_is_measured(fault: Fault, tmp_path: Path) -> None:
    recipe = recipe_of(fault, tmp_path)
    (finding,) = findings(recipe, fault.check)
    assert finding.level == fault.level
    assert all(words in finding.message for words in fault.says)
    assert finding.fix.keys() == fault.fix.keys()
    assert not findings(Recipe.load(recipe, finding.fix), fault.check)


HEALTHY: dict[str, Any] = {
    "kd": {"kd": {}},
    "pefd": {"pefd": {}},
    "lshfm": {"lshfm": {"hashes": 64}},
    "nd": {"nd": {}},
}
OWN = (
    *("teacher_accuracy", "reset_head", "teacher_features", "network_inputs", "schedule"),
    *("tiny_batches", "losses", "divergence"),
)


@pytest.mark.parametrize(
    ("data", "methods"),
    [
        *((data, methods) for data in (clothes, signs, marks) for methods in HEALTHY.values()),
        (signs, {"kd": {}, "crd": {"negatives": 64}}),
        (signs, {"dist": {}, "at": {}}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "+".join(value),
)
def test_a_healthy_recipe_has_no_warning(
    data: DataSetMaker, methods: dict[str, Any], tmp_path: Path
) -> None:
    # At a rate of 0.02 the weights grow several hundredfold by these: students end at chance.
    rate = 0.02 if methods.keys().isdisjoint({"lshfm", "at"}) else 0.002
    made = {**trained(data, lr=rate)(tmp_path), "methods": methods}
    examined = Examined(Recipe.load(SMALL, made), device="cpu")
    every = [finding for name in OWN for finding in checks.find(name).check(examined)]
    assert not [str(finding) for finding in every if finding.level != "note"]
    assert {finding.check for finding in every} >= {"teacher_accuracy", "losses", "network_inputs"}
