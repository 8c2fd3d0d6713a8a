"""The root folder of a data set, and the names of its splits."""

from pathlib import Path

from understudy.data.source import Split
from understudy.errors import DataError

TEST_NAMES = ("test", "val", "valid", "validation")
"""Names that the test split may have; the first that exists is used."""

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": TEST_NAMES}
"""Names that each split may have."""


def existing(root: str, expected: str) -> Path:
    """Return the folder that `data.root` names; `DataError` that asks for `expected` if missing."""
    if not root or not Path(root).is_dir():
        raise DataError(f"There is no folder {root!r}; set data.root to {expected}.")
    return Path(root)


def no_test_split(root: str) -> DataError:
    """Return the error for a data set with only training images."""
    return DataError(
        f"{root} has no test split (none of {', '.join(TEST_NAMES)}); "
        "set data.validation to keep a share of the training images for validation."
    )
