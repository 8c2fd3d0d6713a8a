"""Lists as flags: without brackets, with commas, and as they were written before."""

from typing import Any

import pytest

from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.errors import RecipeError


@pytest.mark.parametrize(
    ("words", "keys", "recipe"),
    [
        ("--training.milestones 150 180 210", {"training.milestones": (150, 180, 210)}, None),
        ("--training.milestones 150,180,210", {"training.milestones": (150, 180, 210)}, None),
        ("--training.milestones=150,180 mine", {"training.milestones": (150, 180)}, "mine"),
        ("--training.milestones 150 mine", {"training.milestones": (150,)}, "mine"),
        ("--training.milestones [150, 180] mine", {"training.milestones": (150, 180)}, "mine"),
        ("--training.milestones=[150,180] mine", {"training.milestones": (150, 180)}, "mine"),
        ("--training.milestones [] mine", {"training.milestones": ()}, "mine"),
        ("mine --bank.features penultimate logits", {"bank.features": ("penultimate", "logits")},
         "mine"),
        ("--bank.features penultimate,logits --seed 3",
         {"bank.features": ("penultimate", "logits"), "seed": 3}, None),
        ("--training.only *.embedding.*", {"training.only": ("*.embedding.*",)}, None),
        ("--training.trackers wandb mlflow mine", {"training.trackers": ("wandb", "mlflow")},
         "mine"),
        ("--student.mean .5 0.5 5e-1 mine", {"student.mean": (0.5, 0.5, 0.5)}, "mine"),
        ("--student.mean null mine", {"student.mean": None}, "mine"),
        ("--data.size 224 160 mine", {"data.size": (224, 160)}, "mine"),
        ("--data.size 224 mine", {"data.size": 224}, "mine"),
        ("--student.size=auto mine", {"student.size": "auto"}, "mine"),
        ("--student.size null mine", {"student.size": None}, "mine"),
        ("--teacher.size 224,160 mine", {"teacher.size": (224, 160)}, "mine"),
        ("--methods.reviewkd.widths 16 32 mine", {"methods.reviewkd.widths": [16, 32]}, "mine"),
        ("--methods.kd.weight 2 mine", {"methods.kd.weight": 2}, "mine"),
    ],
)  # fmt: skip
def test_a_list(words: str, keys: dict[str, Any], recipe: str | None) -> None:
    options, replaced = parse(COMMANDS["distill"], "distill", words.split())
    assert replaced == keys
    assert options.recipe == recipe


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--training.milestones x",
            r"'training.milestones\[0\]' is 'x'; it must be a whole number",
        ),
        ("--training.milestones --seed 1", "--training.milestones: expected one argument"),
        ("--training.trackers wandbb", "did you mean 'wandb'"),
        ("--data.size 224x160", r"must be a whole number, or a list of numbers: \[32, 16\]"),
        ("--data.size 160 160", "write the side of a square as one number, 160"),
        ("--data.size 1 2 3", "must be a list of 2"),
        ("--data.size 224 0", r"'data.size\[1\]' is 0"),
        ("--training.asymmetry 0 4", "must be a list of 3"),
    ],
)
def test_a_mistake_is_refused(words: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(COMMANDS["distill"], "distill", words.split())
