"""The proof that the methods equal the authors' code: every recorded case, through the library."""

import pytest

from vectors import kinds
from vectors.archive import Case


@pytest.mark.usefixtures("count")
def test_equals_the_authors_code(family: str, case: Case) -> None:
    kinds.check(family, case)
