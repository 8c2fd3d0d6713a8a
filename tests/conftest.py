"""Options of the test suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        metavar="DIR",
        help="folder of golden vectors (*.npz) recorded from the authors' code; default: "
        "the environment's UNDERSTUDY_VECTORS, else ../shared/vectors beside the repository",
    )
