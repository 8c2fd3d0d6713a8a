"""The root folder of a data set, and the names of its splits."""

from collections.abc import Collection, Sequence
from pathlib import Path

from understudy.data.source import Split
from understudy.errors import DataError
from understudy.files import refuse_address

VALIDATION_NAMES = ("val", "valid", "validation")
"""Names that the validation split may have."""

TEST_NAMES = ("test", *VALIDATION_NAMES)
"""Names that the test split may have: without `test`, the validation split is the test split."""

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": VALIDATION_NAMES,
    "test": TEST_NAMES,
}
"""Names that each split may have."""


class NoSplit(DataError):
    """A data set that does not have the split that was asked for."""


def choose(split: Split, names: Collection[str]) -> str | None:
    """Return the name under which a data set has a split; None if it does not have it.

    Args:
        split: Split to look for.
        names: Names of the splits that the data set has, in any case.

    Raises:
        DataError: Several splits could be the one that was asked for.
    """
    present = _present(SPLIT_NAMES[split], names)
    if split == "validation" and "test" not in map(str.lower, names):
        return None
    if "test" not in map(str.lower, present[:1]) and len(present) > 1:
        raise DataError(
            f"{' and '.join(present)} could each be the {split} split; "
            "rename one of them, or leave all but one out."
        )
    return next(iter(present), None)


def _present(expected: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the names that a data set has of those expected, in the order of `expected`."""
    return [name for label in expected for name in names if name.lower() == label]


def existing(root: str, expected: str) -> Path:
    """Return the folder that `data.root` names; `DataError` that asks for `expected` if missing."""
    refuse_address(root, "data.root")
    if not root or not Path(root).is_dir():
        relative = root and not Path(root).is_absolute()
        seen = f" as seen from the present folder {Path.cwd()}" if relative else ""
        raise DataError(f"There is no folder {root!r}{seen}; set data.root to {expected}.")
    return Path(root)


def no_test_split(root: str) -> NoSplit:
    """Return the error for a data set with only training images."""
    return NoSplit(
        f"{root} has no test split (none of {', '.join(TEST_NAMES)}); "
        "set data.validation to keep a share of the training images for validation."
    )


def no_validation_split(root: str) -> NoSplit:
    """Return the error for a data set without validation images beside its test images."""
    return NoSplit(
        f"{root} has no validation split beside a test split "
        f"(none of {', '.join(VALIDATION_NAMES)}); set data.validation to keep a share of the "
        "training images for validation."
    )


def no_split(split: Split, root: str) -> NoSplit:
    """Return the error for a data set without validation or test split."""
    return no_test_split(root) if split == "test" else no_validation_split(root)
