"""In which order several workers take the tests."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import LONG, SHORT, pytest_collection_modifyitems

TESTS = Path(__file__).parent


def ordered(names: list[str], workers: int) -> list[str]:
    items = [SimpleNamespace(path=TESTS / name) for name in names]
    config = SimpleNamespace(workerinput={"workercount": workers}) if workers else SimpleNamespace()
    pytest_collection_modifyitems(config, items)  # type: ignore[arg-type]
    return [item.path.relative_to(TESTS).as_posix() for item in items]


def test_all_that_is_named_exists() -> None:
    assert [name for name in LONG | SHORT if not (TESTS / name).exists()] == []
    assert not LONG & SHORT


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_each_worker_begins_with_what_is_long_and_ends_with_what_is_short(workers: int) -> None:
    names = ["bank/a.py", "bank/b.py", "config/a.py", "config/b.py", "run/a.py", "run/b.py"]
    names += ["tuning/test_space.py", "tuning/test_tune.py", "test_batch.py"]
    result = ordered(names, workers)
    if workers < 2:
        assert result == names
        return
    assert sorted(result) == sorted(names)
    each = len(names) // workers
    for start in range(0, each * workers, each):
        assert result[start] in {"run/a.py", "run/b.py", "tuning/test_tune.py"}
    assert result[-1] == "tuning/test_space.py"
