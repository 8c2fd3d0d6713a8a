"""Very many rows of a Hugging Face data set: none is decoded before training."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.data._image import measured, sides_of
from understudy.data.replaced import LazySource
from understudy.data.source import Source, Unreadable, short_digest
from understudy.data.sources import _undecoded
from understudy.data.sources._cache import cache_folder
from understudy.data.sources._named_files import is_inside
from understudy.data.sources._undecoded import (
    kept_in_memory,
    replacing,
    side_of_sample,
    why_undecoded,
)
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")


@final
class ListedRows(LazySource):
    """Rows of a data set, each decoded when it is asked for.

    Args:
        rows: Rows of the data set, with images as bytes or as paths.
        column: Name of the column of images.
        labels: Class number of each image; -1 (`UNLABELLED`) where it is not known.
        classes: Class names in the order of the labels.
        root: Name or folder of the data set; files lie in the folder.
        paths: File of each image, if these are files beside the rows.
    """

    def __init__(
        self,
        rows: Any,
        column: str,
        labels: Int64[Tensor, " images"],
        classes: tuple[str, ...],
        *,
        root: str,
        paths: Sequence[Path],
    ) -> None:
        self.rows, self.column, self.labels, self.classes = rows, column, labels, classes
        self.paths, self._root, self.size, self.skipped = paths, root, None, ()

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Decode the image of row `i`; `DataError` if it cannot be decoded."""
        encoded = self._encoded(i)
        return measured(encoded, name=self.name(i))[0]

    def sides_of(self, i: int) -> tuple[int, int]:
        """Return height and width of the image of row `i`, read from its header."""
        return sides_of(self._encoded(i))

    def name(self, i: int) -> str:
        """Return the file of row `i`, or its number."""
        return str(self.paths[i]) if self.paths else f"row {i} of {self._root}"

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the data set's own fingerprint, and of the sizes of files."""
        sizes = [path.stat().st_size for path in self.paths]
        fingerprint = self.rows._fingerprint
        return short_digest(fingerprint, *([np.array(sizes).tobytes().hex()] if sizes else []))

    def _encoded(self, i: int) -> Path | BytesIO:
        image: Mapping[str, Any] = self.rows[i][self.column]
        if image["bytes"] is not None:
            return BytesIO(image["bytes"])
        path, top = Path(image["path"]), Path(self._root)
        if top.is_dir() and not is_inside(path, top):
            raise DataError(f"row {i}: {path} is outside of the data set's folder {top}")
        return path


def listed_rows(source: ListedRows, unreadable: Unreadable) -> Source | None:
    """Return the source of very many rows; None if they are to be decoded before training.

    Raises:
        DataError: None of a sample of the rows can be read.
    """
    count = len(source)
    if count <= _undecoded.LISTED:
        return None
    if kept_in_memory(count, side_of_sample(count, source.sides_of, "rows")):
        return None
    LOGGER.info(f"The {count:,} rows are not decoded before training, {why_undecoded()}")
    folder = cache_folder() / "rows" / short_digest(source.images_digest, source.column)
    return replacing(source, folder, unreadable)
