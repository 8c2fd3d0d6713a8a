"""Sequences whose entries are made when they are asked for: some of another one, or two joined."""

from collections.abc import Sequence
from typing import Any, TypeVar, final, overload

from jaxtyping import Int64
from torch import Tensor

T = TypeVar("T")


@final
class Picked(Sequence[T]):
    """Some entries of another sequence, in the order of their numbers."""

    def __init__(self, entries: Sequence[T], index: Int64[Tensor, " picked"]) -> None:
        self._entries, self._index = entries, index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        """Return entry `i`, or a list of entries."""
        if isinstance(i, slice):
            return [self._entries[j] for j in self._index[i].tolist()]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self._entries[int(self._index[i])]


@final
class Chained(Sequence[T]):
    """The entries of two sequences, one behind the other."""

    def __init__(self, first: Sequence[T], second: Sequence[T]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        """Return entry `i`, or a list of entries."""
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        i = range(len(self))[i]
        before = len(self._first)
        return self._first[i] if i < before else self._second[i - before]


def picked(entries: Sequence[Any], index: Int64[Tensor, " picked"]) -> Sequence[Any]:
    """Return some entries: a list of those in memory, and of others a sequence that is lazy too."""
    if not entries:
        return ()
    if isinstance(entries, list | tuple):
        return [entries[i] for i in index.tolist()]
    return Picked(entries, index)


def chained(first: Sequence[Any], second: Sequence[Any]) -> Sequence[Any]:
    """Return the entries of both; none unless both have some."""
    if not first or not second:
        return ()
    both = isinstance(first, list | tuple) and isinstance(second, list | tuple)
    return (*first, *second) if both else Chained(first, second)
