"""Recipes with a planted fault each, and folders of pictures for them.

A row of a table names the fault, the check that has to find it, what its message says, and the fix
that it has to print. `assert_mended` applies that fix: the finding must go.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.support.papers import over_papers
from tests.support.small_runs import CNN
from understudy import checks
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.config.recipe import Recipe

SMALL: dict[str, Any] = over_papers(
    {
        "trust": True,
        "student": {"name": CNN},
        "training": {"epochs": 4, "batch": 16, "lr": 0.02, "schedule": "cosine"},
    }
)
"""A recipe without a teacher, whose student is so small that it costs nothing."""

Make = Callable[[Path], Mapping[str, Any]]
"""Makes what a recipe needs in a folder; returns keys of the recipe, nested or dotted."""


@dataclass(frozen=True)
class Fault:
    """A planted fault, and what the doctor has to say of it."""

    name: str
    check: str
    make: Make
    says: Sequence[str]
    """Words of the message: the evidence."""
    fix: Mapping[str, Any] = field(default_factory=dict)
    level: str = "warning"
    mend: Callable[[Path], object] | None = None
    """Does by hand, in the folder, what the advice says where no flag mends it."""

    def __str__(self) -> str:
        return f"{self.check}: {self.name}"


def recipe_of(fault: Fault, folder: Path, **replaced: Any) -> Recipe:
    """The recipe of a fault, with some keys replaced."""
    return Recipe.load(Recipe.load(SMALL, fault.make(folder)), replaced)


def findings(recipe: Recipe, check: str, **options: Any) -> list[Finding]:
    """What one check says of a recipe, warnings and errors alone."""
    every = checks.find(check).check(Examined(recipe, device="cpu", **options))
    return [finding for finding in every if finding.level != "note"]


def assert_found_and_mended(fault: Fault, folder: Path) -> None:
    """The check finds the fault with its numbers and its fix; with that fix it finds it no more."""
    recipe = recipe_of(fault, folder)
    (finding,) = (f for f in findings(recipe, fault.check) if _is_meant(f, fault))
    assert finding.level == fault.level
    for words in fault.says:
        assert words in finding.message
    assert dict(finding.fix) == dict(fault.fix)
    assert finding.fix or finding.advice
    if finding.fix:
        mended = with_flags(recipe, finding.flags)
        assert not [f for f in findings(mended, fault.check) if _is_meant(f, fault)]
    elif fault.mend:
        fault.mend(folder)
        assert not [f for f in findings(recipe, fault.check) if _is_meant(f, fault)]


def with_flags(recipe: Recipe, flags: str) -> Recipe:
    """The recipe with flags as they are printed, typed at a command."""
    _, keys = parse(COMMANDS["doctor"], "doctor", shlex.split(flags))
    return Recipe.load(recipe, keys)


def _is_meant(finding: Finding, fault: Fault) -> bool:
    return fault.says[0] in finding.message


def pictures(
    folder: Path,
    counts: Mapping[str, int],
    *,
    split: str = "train",
    sides: tuple[int, int] = (40, 40),
    seed: int = 0,
) -> Path:
    """Write pictures of smooth noise, none like another: width and height, number of each class."""
    generator = torch.Generator().manual_seed(seed)
    for name, count in counts.items():
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(_noise(count, sides, generator)):
            image.save(folder / split / name / f"{number:03}.png")
    return folder


def _noise(count: int, sides: tuple[int, int], generator: torch.Generator) -> Iterator[Image.Image]:
    for _ in range(count):
        small = torch.randint(256, (6, 6, 3), generator=generator, dtype=torch.uint8)
        yield Image.fromarray(small.numpy()).resize(sides, Image.Resampling.BICUBIC)
