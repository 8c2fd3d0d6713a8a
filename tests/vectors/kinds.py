"""Which module knows which family of files."""

from collections.abc import Iterator

from tests.vectors import foundation, letkd, logit, lshfm, nd, pefd, zoo
from tests.vectors.archive import Case, Fields

FAMILIES = {
    **{"logit": logit, "lshfm": lshfm, "nd": nd, "pefd": pefd, "zoo": zoo, "letkd": letkd},
    "foundation": foundation,
}


def cases(family: str, archive: Fields) -> Iterator[Case]:
    """The cases of one file, by the family its name starts with."""
    assert family in FAMILIES, f"no rule for files named {family}_*.npz"
    return FAMILIES[family].cases(archive)


def check(family: str, case: Case) -> None:
    """Compare the library with one recorded case."""
    checks = FAMILIES[family].CHECKS
    assert case.kind in checks, f"unknown kind {case.kind!r} in a {family} file"
    checks[case.kind](case.fields)
