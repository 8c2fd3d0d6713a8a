"""The folder of a data set, and what its splits are called."""

from pathlib import Path

from understudy.errors import DataError

TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of the split that is read as `test`; the first that exists is taken."""


def existing(root: str, what: str) -> Path:
    """The folder that `data.root` names; `DataError` that asks for `what` if there is none."""
    if not root or not Path(root).is_dir():
        raise DataError(f"There is no folder {root!r}; set data.root to {what}.")
    return Path(root)


def no_test_split(place: str) -> DataError:
    """The error to raise when only training images exist."""
    return DataError(
        f"{place} has no test split (none of {', '.join(TEST_NAMES)}); "
        "set data.validation to keep a share of the training images for validation."
    )
