"""A store of named objects: a folder of this machine, or an address that fsspec knows (`s3://`)."""

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, final

from understudy import files
from understudy.config.extras import installation
from understudy.errors import BankError, UnderstudyError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?=:/|::)")

_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "r2"}
"""Schemes of object stores, which have no folders."""


def is_address(place: str) -> bool:
    """Return True for an address such as `s3://bucket/bank`, False for a folder.

    >>> [is_address(place) for place in ("s3://b/x", "memory://x", "runs/bank", "C:/bank")]
    [True, True, False, False]
    """
    return bool(_ADDRESS.match(place))


def is_remote(place: str) -> bool:
    """Return True for an address other than that of a folder of this machine.

    >>> [is_remote(place) for place in ("s3://b/x", "file:///bank", "runs/bank")]
    [True, False, False]
    """
    return is_address(place) and not normal(place).startswith("file://")


def normal(place: str) -> str:
    """Return a place with the slashes that `Path` takes out of an address, and none at its end.

    >>> normal("s3:/bucket/bank/")
    's3://bucket/bank'
    """
    scheme = _ADDRESS.match(place)
    if scheme and place[scheme.end() :].startswith(":/"):
        root = "/" if scheme[0] == "file" else ""
        place = f"{scheme[0]}://{root}{place[scheme.end() + 1 :].lstrip('/')}"
    return place.rstrip("/") or place


def local_folder(place: str) -> Path:
    """Return the folder of this machine that a bank uses: its own, or the cache of its address.

    The cache is a folder of `cache_folder`.
    """
    place = normal(place)
    if not is_address(place):
        return Path(place)
    if place.startswith("file://"):
        return Path(place.removeprefix("file://"))
    return files.cache_folder() / "bank" / sha256(place.encode()).hexdigest()[:16]


@final
class Store:
    """Objects by name; an object is replaced whole, and what is in a folder can be listed.

    Args:
        place: Folder, or address such as `s3://bucket/bank`.

    Attributes:
        local: The folder, if it lies on this machine; else None.
    """

    def __init__(self, place: str) -> None:
        self.place = normal(place)
        self._made: set[str] = set()
        self.local = None if is_remote(place) else local_folder(place)

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder, sorted; none if there is no such folder.

        Raises:
            BankError: The place cannot be read.
        """
        with self._explained("listed"):
            try:
                if self.local is not None:
                    return sorted(path.name for path in (self.local / folder).iterdir())
                self._files.invalidate_cache()
                paths = self._files.ls(self._at(folder), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(str(path).rpartition("/")[2] for path in paths)

    def read(self, name: str) -> bytes | None:
        """Return an object; None if there is none of that name.

        Raises:
            BankError: The place cannot be read.
        """
        with self._explained("read"):
            try:
                if self.local is not None:
                    return (self.local / name).read_bytes()
                content: bytes = self._files.cat_file(self._at(name))
                return content
            except FileNotFoundError:
                return None

    def publish(self, name: str, content: bytes) -> None:
        """Write a small object, whole or not at all.

        Raises:
            BankError: The place cannot be written.
        """
        with self._explained("written"):
            if self.local is not None:
                files.write(self.local / name, content, key="bank.path", again="start again")
                return
            self._make_folder(name)
            self._files.pipe_file(self._at(name), content)

    def upload(self, file: Path, name: str) -> None:
        """Write an object from a file, which is gone afterwards where the store is a folder.

        In a store without renaming, it may be there in part until the call returns.

        Raises:
            BankError: The place cannot be written.
        """
        with self._explained("written"):
            if self.local is not None:
                target = self.local / name
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
                return
            self._make_folder(name)
            self._files.put_file(str(file), self._at(name))

    def download(self, name: str, file: Path) -> None:
        """Copy an object into a file.

        Raises:
            BankError: There is no such object, or the place cannot be read.
            OSError: The disk of the file is full.
        """
        with self._explained("read", passing=(errno.ENOSPC, errno.EDQUOT)):
            self._files.get_file(self._at(name), str(file))

    def _make_folder(self, name: str) -> None:
        """Make the folder of an object where a store has folders; never make a bucket."""
        parent = self._at(name).rpartition("/")[0]
        if parent not in self._made and self.place.partition(":")[0] not in _BUCKETS:
            self._files.makedirs(parent, exist_ok=True)
        self._made.add(parent)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            fsspec = import_module("fsspec")
            opened, root = fsspec.core.url_to_fs(self.place)
        except ImportError as error:
            raise BankError(
                f"bank.path is {self.place!r}, and reading it needs a package that is missing "
                f"({error}): install it, or all of them by `{installation('remote')}`."
            ) from error
        except ValueError as error:
            raise BankError(
                f"bank.path is {self.place!r}, an address that fsspec does not know ({error}): "
                "give a folder, or an address such as s3://bucket/bank or gs://bucket/bank."
            ) from error
        return opened, str(root).rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @contextmanager
    def _explained(self, done: str, *, passing: tuple[int, ...] = ()) -> Iterator[None]:
        """Turn whatever a store raises (each has exceptions of its own) into a sentence.

        Args:
            done: What fails.
            passing: Codes of system errors that are passed on.
        """
        try:
            yield
        except UnderstudyError as error:  # a sentence already
            raise BankError(str(error)) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in passing:
                raise
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise BankError(
                f"The bank {self.place} cannot be {done} ({words}): check the address, the access "
                "to it and the room there, and start again; shards that are complete stay."
            ) from error


def read_manifest(store: Store) -> dict[str, Any] | None:
    """Return the manifest of the bank in a store; None if there is no bank.

    Raises:
        BankError: It is damaged, or cannot be read.
    """
    content = store.read("manifest.json")
    if content is None:
        return None
    try:
        stored = json.loads(content)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise BankError(
            f"{store.place}/manifest.json is damaged; delete it, and build the bank again: shards "
            "that are complete stay."
        )
    return stored


def layout_of(store: Store) -> str:
    """Return the layout that the manifest of a bank names; empty if there is none that does."""
    try:
        return str(json.loads(store.read("manifest.json") or b"")["layout"])
    except (ValueError, KeyError, TypeError):
        return ""
