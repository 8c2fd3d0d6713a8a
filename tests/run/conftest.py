import logging
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import TINY

from understudy.config import recipe
from understudy.config.recipe import Recipe
from understudy.experiment.train import train


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


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the logger `understudy` says at INFO and above."""
    caplog.set_level(logging.INFO, logger="understudy")
    return caplog


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)
