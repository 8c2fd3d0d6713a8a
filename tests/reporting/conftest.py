"""One full comparison that the tests of the report share."""

from pathlib import Path

import pytest

from tests.support.report_directories import write_comparison


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full comparison: five methods, three seeds."""
    root = tmp_path_factory.mktemp("comparison")
    write_comparison(root)
    return root
