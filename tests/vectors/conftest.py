"""Collects every case of every golden-vector file as one test, and counts them by kind."""

import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.vectors import kinds
from tests.vectors.archive import Case

REPOSITORY = Path(__file__).parents[2]
KIND = "vector kind"


def folder(config: pytest.Config) -> Path:
    default = os.environ.get("UNDERSTUDY_VECTORS", REPOSITORY.parent / "shared" / "vectors")
    return Path(config.getoption("--vectors") or default)


@cache
def collect(root: Path) -> list[tuple[str, Case]]:
    """(family, case) of every file."""
    found = []
    for path in sorted(root.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        family = path.stem.split("_")[0]
        found += [(path.stem, case) for case in kinds.cases(family, arrays)]
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    root = folder(metafunc.config)
    found = collect(root)
    if not found and metafunc.config.getoption("--vectors"):
        raise pytest.UsageError(f"--vectors {root}: there is no golden vector (*.npz) to check.")
    absent = pytest.mark.skip(reason=f"no golden vectors (*.npz) in {root}; name them by --vectors")
    metafunc.parametrize(
        ("family", "case"),
        [pytest.param(f.split("_")[0], c, id=f"{f}/{c.name}") for f, c in found]
        or [pytest.param("", None, id="absent", marks=absent)],
    )


@pytest.fixture
def count(family: str, case: Case, record_property: Callable[[str, object], None]) -> None:
    record_property(KIND, (family, case.kind))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.getreports("passed")
    told = (value for report in passed for name, value in report.user_properties if name == KIND)
    ran = Counter((family, kind) for family, kind in told)
    if not ran:
        return
    terminalreporter.section("golden vectors")
    for (family, kind), cases in sorted(ran.items()):
        terminalreporter.write_line(f"{family:10} {kind:28} {cases:4} cases")
    terminalreporter.write_line(f"ran: {ran.total()} cases")
