from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import TINY

from understudy import recipe
from understudy.recipe import Recipe
from understudy.run import train


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small trained teacher."""
    wanted = recipe.parse(TINY, {"student.options": {"width": 16}, "training.epochs": 3})
    return train(wanted, out=tmp_path_factory.mktemp("runs") / "teacher").path


@pytest.fixture
def tiny(teacher: Path) -> Recipe:
    """A short distillation by two methods, one of which measures the teacher first."""
    return replace(
        recipe.parse(TINY),
        teacher=recipe.Network(weights=str(teacher)),
        methods={"lshfm": {"hashes": 64}, "kd": {}},
    )
