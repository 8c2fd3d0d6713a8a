"""Options of the test suite."""

import os

import pytest

# The tensors of tests are small: a second thread would only wait for the first. Set before torch
# is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
