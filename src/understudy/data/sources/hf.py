"""A Hugging Face data set, by its name on the hub or the folder it was saved in.

The columns are found by their types: the first `Image`, and the first `ClassLabel` or else an
integer column `label`; without either the images are unlabelled. The test split may also be called
`val`, `valid` or `validation`.
"""

from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, final

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.data._image import decode
from understudy.data.source import Source, short_digest
from understudy.data.sources._files import fits, in_memory
from understudy.data.sources._splits import TEST_NAMES, no_test_split
from understudy.errors import DataError


@final
class RowSource(Source):
    """Rows of a Hugging Face data set, each image decoded when asked for."""

    pixels = None

    def __init__(
        self,
        rows: Any,
        column: str,
        labels: Int64[Tensor, " images"],
        classes: tuple[str, ...],
        *,
        sides: Int64[Tensor, "images 2"],
        skipped: tuple[str, ...],
    ) -> None:
        self.rows, self.column, self.labels, self.classes = rows, column, labels, classes
        self._sides, self.skipped = sides, skipped
        self.size = int(sides[0, 0]) if (sides == sides[0, 0]).all() else None

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Image of row `i`, upright and in RGB; `DataError` if it cannot be decoded."""
        return _decoded(self.rows[i][self.column])

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Height and width of every image, as the check has found them."""
        return self._sides

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the data set's own fingerprint."""
        return short_digest(self.rows._fingerprint)


def load(
    root: str, split: Literal["train", "test"], *, unreadable: Literal["skip", "fail"] = "skip"
) -> Source:
    """The images of one split.

    Raises:
        DataError: The package `datasets` is missing, there is no such data set or split, it has
            no image column, or an image cannot be read and `unreadable` is `fail`.
    """
    rows = _split(_opened(root), root, split)
    column = _image_column(rows.features, root)
    labels, classes = _labelled(rows)
    encoded = _encoded(rows, column)
    sides, broken = _checked(encoded, column)
    if broken and (unreadable == "fail" or len(broken) == len(rows)):
        raise DataError(
            f"{len(broken)} of {len(rows)} images of {root} cannot be read, first: "
            f"{next(iter(broken.values()))}. Leave some out with data.unreadable=skip."
        )
    kept = [i for i in range(len(rows)) if i not in broken]
    source = RowSource(
        encoded.select(kept),
        column,
        labels[kept],
        classes,
        sides=sides[kept],
        skipped=tuple(broken.values()),
    )
    return in_memory(source) if fits(len(source), source.size) else source


def _opened(root: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "The source 'hf' needs the package 'datasets': pip install 'understudy[hf]'."
        ) from error
    if not root:
        raise DataError("The source 'hf' needs a data set; set data.root to its name or folder.")
    saved = any((Path(root) / f).is_file() for f in ("dataset_dict.json", "state.json"))
    try:
        return datasets.load_from_disk(root) if saved else datasets.load_dataset(root)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"There is no Hugging Face data set {root!r} ({error}); set data.root to a name on the "
            "hub or to a saved folder."
        ) from error


def _split(found: Any, root: str, split: Literal["train", "test"]) -> Any:
    splits = found if isinstance(found, dict) else {"train": found}
    for name in ("train",) if split == "train" else TEST_NAMES:
        if name in splits:
            return splits[name]
    if split == "test":
        raise no_test_split(root)
    raise DataError(f"{root} has no split 'train'; it has: {', '.join(splits)}.")


def _image_column(features: Mapping[str, Any], root: str) -> str:
    for name, feature in features.items():
        if type(feature).__name__ == "Image":
            return name
    raise DataError(f"{root} has no column of images; it has: {', '.join(features)}.")


def _labelled(rows: Any) -> tuple[Int64[Tensor, " images"], tuple[str, ...]]:
    """Label of every row, and class names."""
    for name, feature in rows.features.items():
        if type(feature).__name__ == "ClassLabel":
            return _numbers(rows[name]), tuple(feature.names)
    if "int" in str(getattr(rows.features.get("label"), "dtype", "")):
        labels = _numbers(rows["label"])
        return labels, tuple(str(n) for n in range(int(labels.max()) + 1))
    return torch.full((len(rows),), UNLABELLED), ()


def _numbers(column: Any) -> Int64[Tensor, " images"]:
    return torch.tensor([UNLABELLED if label is None else label for label in column])


def _encoded(rows: Any, column: str) -> Any:
    """The same rows with images as bytes: our own decoding turns and converts them."""
    from datasets import Image

    return rows.cast_column(column, Image(decode=False))


def _checked(rows: Any, column: str) -> tuple[Int64[Tensor, "rows 2"], dict[int, str]]:
    """Height and width of every image, and row → reason for those that cannot be read."""
    import datasets

    # A second run finds the result by the fingerprint of the data; not beside them, where
    # `map` would put it, because they may lie in a folder that cannot be written.
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "understudy"
    cache.mkdir(parents=True, exist_ok=True)
    found = rows.map(
        _result,
        input_columns=column,
        remove_columns=rows.column_names,
        cache_file_name=str(cache / f"{rows._fingerprint}.arrow"),
        desc="Checking images",
    )
    broken = {i: f"row {i}: {reason}" for i, reason in enumerate(found["reason"]) if reason}
    return torch.tensor([list(found["height"]), list(found["width"])]).T, broken


def _result(image: Mapping[str, Any]) -> dict[str, Any]:
    try:
        height, width = _decoded(image).shape[1:]
    except DataError as error:
        return {"height": 0, "width": 0, "reason": str(error)}
    return {"height": height, "width": width, "reason": ""}


def _decoded(image: Mapping[str, Any]) -> UInt8[Tensor, "3 height width"]:
    if image["bytes"] is None:
        return decode(Path(image["path"]))
    return decode(BytesIO(image["bytes"]), name=image["path"] or "an image")
