"""Options and fixtures of the whole test suite."""

import os

# The tensors of tests are small: a second thread would only wait for the first. Set before torch
# is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test asks for threads, those without work sleep: others need the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Read when `datasets` is first imported.
os.environ["HF_HUB_OFFLINE"] = "1"

import gc
import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# Says what processes that tests start have loaded already, before any test starts one.
from tests.support.processes import never_wait_for_the_disk

# Of the library, only types: a warning at import counts too (pytest_configure). Nor torch and its
# like: the process that hands tests to others runs none, and they wait for it.
if TYPE_CHECKING:
    from PIL import Image

    from understudy.config.recipe import Recipe

# The machine that runs the tests may be busy: time per example says nothing here.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A short run would wait for the disk 15 to 30 times, for some milliseconds each.
never_wait_for_the_disk()

Paint = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        metavar="DIR",
        help="folder of golden vectors (*.npz) recorded from the authors' code; default: "
        "the environment's UNDERSTUDY_VECTORS, else ../shared/vectors beside the repository",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A warning that our own code raises, or causes where we call, is a fault of ours.
    config.addinivalue_line("filterwarnings", r"error:::understudy(\.|$)")


LONG = {
    *("checks", "comparison", "deployment", "fuzz", "models", "reporting", "reproduction", "run"),
    *("site", "tuning", "cli/test_commands.py", "test_every_detector.py", "test_every_model.py"),
    *("test_every_recipe.py", "test_examples.py", "test_notebook.py", "test_packaging.py"),
}
SHORT = {
    *("config", "methods", "metrics", "cli/test_advice.py", "cli/test_completion.py"),
    *("reproduction/test_rows.py", "test_every_method.py", "tuning/test_space.py"),
}
"""Files and folders of tests that take a second and more, and of those that take milliseconds."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each of several workers begin with what is long, and leave to the end what is short.

    A worker first gets neighbours, then half of what another one has left: where tests of a minute
    were last, the others waited for it.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers == 1:
        return

    def turn(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent)
        names = {path.as_posix(), path.parts[0]}
        return 2 if names & SHORT else 0 if names & LONG else 1

    turns = [[item for item in items if turn(item) == number] for number in range(3)]
    items[:] = [
        item
        for worker in range(workers)
        for part in turns
        for item in part[len(part) * worker // workers : len(part) * (worker + 1) // workers]
    ]


def pytest_collectstart() -> None:
    # What is imported and collected stays: the collector would look through it in vain.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws from the same seed, whichever tests ran before it."""
    import torch

    # `torch.manual_seed` keeps the stack of its caller for every kind of device that is not there.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small trained teacher."""
    from tests.support.small_runs import teacher

    return teacher(tmp_path_factory.mktemp("runs") / "teacher")


@pytest.fixture
def tiny(teacher: Path) -> "Recipe":
    """A short distillation by two methods, one of which measures the teacher first."""
    from tests.support.small_runs import distillation

    return distillation(teacher)


@pytest.fixture(scope="session")
def saved_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny comparison of classifiers; its photographs are in `../images`."""
    from tests.support.trained_students import compared

    return compared(tmp_path_factory.mktemp("compared"))


@pytest.fixture(scope="session")
def saved_labeller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tiny student for several labels; its test images are in `../images`."""
    from tests.support.trained_students import on_shapes

    student = {"name": "timm:test_efficientnet"}
    return on_shapes(tmp_path_factory.mktemp("labeller"), "multilabel", student)


@pytest.fixture(scope="session")
def saved_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tiny detector; its test images are in `../images`."""
    from tests.support.trained_students import DETECTOR, on_shapes

    student = {"name": "ssdlite", "options": DETECTOR}
    return on_shapes(tmp_path_factory.mktemp("detector"), "detection", student)


@pytest.fixture(scope="module")
def quick_weights() -> Iterator[None]:
    """Large networks repeat the first of their random weights; drawing all of them takes long."""
    from tests.support.quick_weights import draw_in_blocks

    with pytest.MonkeyPatch.context() as patch:
        draw_in_blocks(patch)
        yield


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


def picture(seed: int, size: tuple[int, int]) -> "Image.Image":
    """A smooth picture, different for every seed, that survives JPEG."""
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Saves a picture under a relative name."""

    def save(name: str, *, seed: int = 0, size: tuple[int, int] = (80, 70)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed, size).save(path)
        return path

    return save


@pytest.fixture
def tree(tmp_path: Path, paint: Paint) -> Path:
    """A folder with train (3 cats, 3 dogs) and val (1 of each)."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(3):
            paint(f"train/{name}/{i}.png", seed=10 * label + i, size=(80 + i, 70))
        paint(f"val/{name}/0.jpg", seed=100 + label)
    return tmp_path


@pytest.fixture
def fresh_compiler() -> None:
    """Forget what was compiled: networks share a function, and few recompilations are allowed."""
    import torch

    torch._dynamo.reset()
