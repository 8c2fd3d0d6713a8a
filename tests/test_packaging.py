"""The wheel and the source distribution: complete, and they run elsewhere, also without POSIX."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image

from tests.support.small_runs import CNN

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"

WITHOUT = """
import multiprocessing, os, signal, sys
import asyncio, psutil  # their parts for Linux ask the system when they are imported
for name in ("fcntl", "termios", "pwd", "grp", "resource"):
    sys.modules[name] = None
for name in (
    "fork", "forkpty", "pwrite", "pread", "posix_fallocate", "sysconf",
    "sched_getaffinity", "sched_setaffinity", "killpg", "setsid", "getuid", "geteuid", "fchmod",
    "getloadavg", "nice", "mkfifo",
):
    if hasattr(os, name):
        delattr(os, name)
for name in (
    "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2",
    "pthread_sigmask", "setitimer", "sigwait",
):
    if hasattr(signal, name):
        delattr(signal, name)
multiprocessing.set_start_method("spawn")
"""
"""What every process of the test runs before anything else: Python imports `sitecustomize`."""

PROGRAM = """
import importlib, pkgutil, sys
from pathlib import Path
import understudy
from understudy import cli
from understudy.bank import _claims
from understudy.comparison.jobs import forking
from understudy.experiment import bank_build

def recipe(**keys):
    small = {"data": {"source": "folder", "root": "images"}, "student": {"name": "net.py:factory"}}
    small["training"] = {"epochs": 1, "batch": 4, "lr": 0.01, "schedule": "constant"}
    return understudy.Recipe.load(small, keys)

if __name__ == "__main__":
    assert Path(understudy.__file__).is_relative_to(sys.argv[1])
    assert _claims.fcntl is None and forking.context().get_start_method() == "spawn"
    for module in pkgutil.walk_packages(understudy.__path__, "understudy."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    teacher = understudy.train(recipe(), out="teacher", device="cpu")
    taught = recipe(**{"teacher.weights": "teacher", "methods": {"kd": {}}, "bank.path": "bank"})
    filled = bank_build.fill(taught, device="cpu")
    assert filled.filled() == filled.contract.records
    alone = understudy.distill(taught, out="alone", device="cpu")
    both = understudy.compare(taught, seeds=[0], out="both", device="cpu", jobs=2)
    assert not both.failed
    same = [Path(run, "student.safetensors").read_bytes() for run in ("alone", "both/kd/seed0")]
    assert same[0] == same[1]
    cli.main(["predict", "alone", "images/test", "--out", "predictions.csv"])
    cli.main(["evaluate", "alone"])
    cli.main(["--resume", "both"])
    cli.main(["doctor", "alone/recipe.yaml"])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and a source distribution."""
    backend = pytest.importorskip("hatchling.build")
    folder, before = tmp_path_factory.mktemp("dist"), Path.cwd()
    os.chdir(ROOT)
    try:
        backend.build_wheel(str(folder))
        backend.build_sdist(str(folder))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as pip does it."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    present = {line.removeprefix("src/") for line in listed.stdout.splitlines()}
    expected = {name for name in present if (SOURCES / name).is_file()}
    files = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert {name for name in files if name.startswith("understudy/")} == expected
    kinds = {Path(name).suffix for name in expected}
    assert {".py", ".yaml", ".npz", ".txt", ".j2"} <= kinds
    assert "understudy/py.typed" in files


def test_the_metadata_say_what_is_needed(installed: Path) -> None:
    metadata = Parser().parsestr(next(installed.glob("*.dist-info/METADATA")).read_text("utf-8"))
    assert metadata["Requires-Python"] == ">=3.10"
    classifiers = metadata.get_all("Classifier") or []
    versions = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(classifiers))
    assert versions == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert {"export", "hf"} <= set(metadata.get_all("Provides-Extra") or [])
    licences = [
        path.name for path in installed.rglob("*.dist-info/licenses/**/*") if path.is_file()
    ]
    assert sorted(licences) == ["LICENSE", "fashion_mnist_LICENSE.txt"]


def test_the_source_distribution_holds_what_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["pyproject.toml", "README.md", "LICENSE", "SECURITY.md", "CHANGELOG.md", "Makefile"]
    needed += ["src/understudy/py.typed", "tests/conftest.py", "benchmarks/__main__.py"]
    assert set(needed) <= names


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("test", 2)):
        for label, colour in (("dark", 40), ("light", 200)):
            for i in range(count):
                file = tmp_path / "images" / split / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (colour + i, colour, 5 * i)).save(file)
    return tmp_path


def test_it_trains_elsewhere_and_where_there_is_no_posix(installed: Path, images: Path) -> None:
    (images / "sitecustomize.py").write_text(WITHOUT)
    (images / "program.py").write_text(PROGRAM)
    shutil.copy(CNN.rpartition(":")[0], images / "net.py")
    done = subprocess.run(
        [sys.executable, "program.py", str(installed)],
        cwd=images,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (images, installed)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
