"""What the splits of a data set are called."""

from understudy.errors import DataError

TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of the split that is read as `test`; the first that exists is taken."""


def no_test_split(place: str) -> DataError:
    """The error to raise when only training images exist."""
    return DataError(
        f"{place} has no test split (none of {', '.join(TEST_NAMES)}); "
        "set data.validation to keep a share of the training images for validation."
    )
