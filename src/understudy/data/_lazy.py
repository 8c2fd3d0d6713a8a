"""Sequences whose entries are made when they are asked for: some of another one, or two joined."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, final, overload

from jaxtyping import Int64
from torch import Tensor

T = TypeVar("T")


class LazySequence(Sequence[T], ABC):
    """A sequence that makes each entry when it is asked for."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _entry(self, i: int) -> T:
        """Return entry `i`, which is at least 0 and below the length."""

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        """Return entry `i`, or a list of entries."""
        if isinstance(i, slice):
            return [self._entry(j) for j in range(len(self))[i]]
        return self._entry(range(len(self))[i])

    def __iter__(self) -> Iterator[T]:
        return map(self._entry, range(len(self)))


@final
class Picked(LazySequence[T]):
    """Some entries of another sequence, in the order of their numbers."""

    def __init__(self, entries: Sequence[T], index: Int64[Tensor, " picked"]) -> None:
        self._entries, self._index = entries, index

    def __len__(self) -> int:
        return len(self._index)

    def _entry(self, i: int) -> T:
        return self._entries[int(self._index[i])]


@final
class Chained(LazySequence[T]):
    """The entries of two sequences, one behind the other."""

    def __init__(self, first: Sequence[T], second: Sequence[T]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def _entry(self, i: int) -> T:
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
