import pytest

from understudy.data.class_names import check, positions
from understudy.errors import DataError


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (("cat", "dog"), ("cat", "dog")),
        ((), ("cat", "dog")),
        (("cat", "dog"), ()),
        (("0", "1"), ("cat", "dog")),
        (("cat", "dog"), ("0", "1")),
    ],
)
def test_matching_or_unknown_classes_pass(here: tuple[str, ...], there: tuple[str, ...]) -> None:
    check(here, there)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (("ant", "cat", "dog", "eel"), "data have 3 classes but the teacher has 4"),
        (("ant", "dog", "cat"), "another order: class 1 is 'cat' in the data but 'dog' for"),
        (("ant", "cat", "fox"), "other names: class 2 is 'dog' in the data but 'fox' for"),
    ],
)
def test_other_classes_are_refused(there: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(("ant", "cat", "dog"), there)


@pytest.mark.parametrize("of", ["student", "training split"])
def test_whose_classes_are_others_is_said(of: str) -> None:
    with pytest.raises(DataError, match=f"but the {of} has 1; use data with .*, or another {of}"):
        check(("ant", "cat"), ("ant",), of=of)
    with pytest.raises(DataError, match=f"'cat' in the data but 'dog' for the {of}"):
        check(("ant", "cat"), ("ant", "dog"), of=of)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (("0", "1", "10", "2"), ("0", "1", "2", "10")),
        (("1", "10", "2"), ("1", "2", "10")),
    ],
)
def test_numbers_are_compared_with_numbers(here: tuple[str, ...], there: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"another order: class .* is '10' in the data but '2' for"):
        check(here, there)


@pytest.mark.parametrize(
    ("here", "there", "rows"),
    [
        (("a", "b"), ("b", "a"), [1, 0]),
        (("0", "1", "10", "2"), ("0", "1", "2", "10"), [0, 1, 3, 2]),
        (("dog", "person"), ("person", "cat", "dog"), [2, 0]),
        (("potted_plant", "Dog"), ("dog", "pottedplant", "cat"), [1, 0]),
        (("a", "A"), ("A", "a"), [1, 0]),
        (("A",), ("a", "a "), None),
        (("crane",), ("crane", "crane"), None),
        (("aeroplane", "cat"), ("airplane", "cat"), None),
        ((), ("a",), None),
        (("a",), (), None),
    ],
)
def test_positions_by_name(
    here: tuple[str, ...], there: tuple[str, ...], rows: list[int] | None
) -> None:
    assert positions(here, there) == rows
