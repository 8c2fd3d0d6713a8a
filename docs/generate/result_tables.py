"""Tables of the site that come from results/*.json: what each method changed, where measured."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from understudy.experiment.plain_table import signed

RESULTS = Path(__file__).parents[2] / "results"
GROUPS = {
    "One class per image": {
        "cifar100_all_methods": "CIFAR-100, 6,000 images, 3 epochs",
        "cifar100_resnet32_resnet8": "CIFAR-100, 20,000 images, 4 epochs",
        "demo": "Fashion-MNIST, labels for 200 of 10,000 images",
    },
    "Several classes per image": {
        "demo_multilabel": "drawn shapes",
        "fruits_multilabel": "photographs of fruits, 60 with labels",
    },
    "Boxes": {
        "demo_detection": "drawn shapes",
        "fruits_fasterrcnn": "photographs of fruits",
        "bccd_fcos": "photographs of blood cells",
    },
}
"""Task → measured comparison → its setting in a few words, in the order of the columns."""
CONTINUED = {"fashion_combination": "demo"}
"""Comparison with more arms of another one → that one."""


@dataclass(frozen=True)
class Measured:
    """One arm of a measured comparison."""

    comparison: str
    arm: str
    methods: tuple[str, ...]
    setting: str
    difference: str
    word: str


@cache
def measured() -> tuple[Measured, ...]:
    """Return all arms of all recorded comparisons that have a verdict, each arm once."""
    arms: dict[tuple[str, str], Measured] = {}
    for settings in GROUPS.values():
        for name in settings:
            files = [name, *(more for more, first in CONTINUED.items() if first == name)]
            for arm in (x for file in files for x in _arms(file, name)):
                arms.setdefault((arm.arm, name), arm)
    return tuple(arms.values())


def methods_measured() -> str:
    """Return a table for each task: the difference of each arm from the control."""
    return "\n\n".join(f"### {title}\n\n{_table(title)}" for title in GROUPS)


def _table(title: str) -> str:
    settings = GROUPS[title]
    rows: dict[str, dict[str, str]] = {}
    for x in measured():
        if x.comparison in settings:
            rows.setdefault(x.arm, {})[x.comparison] = _marked(x)
    lines = [f"| method | {' | '.join(settings.values())} |", f"|---|{'--:|' * len(settings)}"]
    for arm in sorted(rows, key=lambda arm: (-len(rows[arm]), arm)):
        lines.append(f"| {arm} | {' | '.join(rows[arm].get(name, '') for name in settings)} |")
    return "\n".join(lines)


def of_method(name: str) -> str:
    """Return what one method changed, in every setting in which it was measured."""
    lines = [f"| {x.setting} | {x.arm} | {_marked(x)} |" for x in measured() if name in x.methods]
    if not lines:
        return "Not measured in a recorded comparison."
    head = ["| setting | arm | difference from the control, points |", "|---|---|--:|"]
    note = (
        "In brackets the 95 % interval; bold where the verdict is a gain or a loss "
        "([what a verdict is](../verdict.md), [all tables](../results.md))."
    )
    return "\n".join([*head, *lines, "", note])


def _marked(x: Measured) -> str:
    """Return a difference, bold where it is a gain or a loss."""
    return f"**{x.difference}**" if x.word in ("gain", "loss") else x.difference


def _arms(file: str, name: str) -> Iterator[Measured]:
    """Yield the arms of a file as those of a comparison."""
    (task, setting), *_ = ((t, s[name]) for t, s in GROUPS.items() if name in s)
    about = f"{task}: {setting}"
    content: dict[str, Any] = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))
    for arm in content["arms"]:
        verdict = arm.get("verdict")
        if not verdict or not arm["methods"]:
            continue
        named = tuple(x.get("method", label) for label, x in arm["methods"].items())
        between = f"[{signed(verdict['low'], 1)}, {signed(verdict['high'], 1)}]"
        text = f"{signed(verdict['difference'], 1)} {between}".replace(" ", "\u00a0")
        yield Measured(name, arm["name"], named, about, text, verdict["word"])
