"""The proof that the methods equal the authors' code: every recorded case, through the library."""

import pytest

from tests.vectors import kinds
from tests.vectors.archive import Case


@pytest.mark.usefixtures("count")
def test_equals_the_authors_code(family: str, case: Case) -> None:
    kinds.check(family, case)
