"""Options of the test suite."""

import pytest


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
