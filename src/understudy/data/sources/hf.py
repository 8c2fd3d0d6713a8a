"""A Hugging Face data set, by its name on the hub or the folder it was saved in.

Columns are selected by type: the first `Image`, and the first `ClassLabel` or else a column
`label`, `labels`, `fine_label`, `target` or `class` of whole numbers or names, whose classes are
those of all splits together; without either the images are unlabelled. A warning says which of
several columns of labels is read, and that none is where there are other columns. The test split
may also be called `val`, `valid` or `validation`; beside `test`, a split of that name is the
validation split.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.config.downloads import from_hub
from understudy.config.extras import installation
from understudy.data._image import measured
from understudy.data.source import Source, Split, Unreadable, content_digest, short_digest
from understudy.data.sources._files import in_memory_if_small
from understudy.data.sources._many_rows import ListedRows, listed_rows
from understudy.data.sources._named_files import is_inside
from understudy.data.sources._numbered import LABEL_COLUMNS, labels_of, names_of
from understudy.data.sources._readable import check, warn_of_depth
from understudy.data.sources._splits import choose, no_split
from understudy.data.sources._table import check_quotes
from understudy.errors import DataError
from understudy.files import refuse_address

LOGGER = logging.getLogger("understudy")

SPLITS = ("train", "validation", "test")
_NAME_ON_HUB = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_TEXTS = ("string", "large_string")


@final
class RowSource(Source):
    """Rows of a Hugging Face data set, whose images are decoded on every access."""

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
        paths: Sequence[Path] = (),
        contents: Sequence[str] = (),
    ) -> None:
        """Store rows and labels; no image is decoded.

        Args:
            rows: Rows of the data set, with images as bytes.
            column: Name of the column of images.
            labels: Class number of each image; -1 (`UNLABELLED`) where it is not known.
            classes: Class names in the order of the labels.
            sides: Height and width of every image.
            skipped: Rows that were left out, each with the reason.
            paths: File of each image, if these are files beside the rows.
            contents: Digest of the encoded content of each image.
        """
        self.paths, self.contents = tuple(paths), tuple(contents)
        self.rows, self.column, self.labels, self.classes = rows, column, labels, classes
        self._sides, self.skipped = sides, skipped
        self.size = int(sides[0, 0]) if (sides == sides[0, 0]).all() else None

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Decode the image of row `i`; `DataError` if it cannot be decoded."""
        return _measured(self.rows[i][self.column])[0]

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image, as found when the rows were checked."""
        return self._sides

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the data set's own fingerprint, and of the contents of files."""
        contents = tuple(self.contents) if self.paths else ()
        return short_digest(self.rows._fingerprint, *filter(None, [contents]))


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split, in the order of its rows.

    Raises:
        DataError: The package `datasets` is missing, there is no such data set or split, it has
            no image column, a quote in a CSV file of it is not closed, or an image cannot be read
            and `unreadable` is `fail`.
    """
    opened = _open(root)
    splits = opened if isinstance(opened, dict) else {"train": opened}
    rows = _split(splits, root, split)
    column = _image_column(rows.features, root)
    labels, classes = _labels(rows, list(splits.values()), root)
    encoded = _as_bytes(rows, column)
    files = _files(encoded, column, root)
    many = listed_rows(
        ListedRows(encoded, column, labels, classes, root=root, paths=files), unreadable
    )
    if many is not None:
        many.split_name = choose(split, splits) or split
        return many
    if files:
        sides, broken, contents = _check_files(files, Path(root))
    else:
        sides, broken, contents = _check(encoded, column, root)
    if broken and (unreadable == "fail" or len(broken) == len(rows)):
        raise DataError(
            f"{len(broken)} of {len(rows)} images of {root} cannot be read, first: "
            f"{next(iter(broken.values()))}. Leave them out with data.unreadable=skip."
        )
    kept = [i for i in range(len(rows)) if i not in broken]
    source = RowSource(
        encoded.select(kept),
        column,
        labels[kept],
        classes,
        sides=sides[kept],
        skipped=tuple(broken.values()),
        paths=[files[i] for i in kept] if files else (),
        contents=[contents[i] for i in kept],
    )
    loaded = in_memory_if_small(source)
    loaded.split_name = choose(split, splits) or split
    return loaded


def _open(root: str) -> Any:
    """Open a saved folder or a data set of the hub: one set of rows, or a dict of splits."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"The source 'hf' needs the package 'datasets': {installation('hf')}."
        ) from error
    if not root:
        raise DataError("The source 'hf' needs a data set; set data.root to its name or folder.")
    refuse_address(root, "data.root")
    for pattern in ("metadata.csv", "*/metadata.csv", "*/*/metadata.csv"):
        # Rows that a lone quote swallows would be lost without a word.
        for file in sorted(Path(root).glob(pattern)):
            check_quotes(file)
    saved = any((Path(root) / f).is_file() for f in ("dataset_dict.json", "state.json"))
    offline = ""
    if not _NAME_ON_HUB.fullmatch(root) and not Path(root).exists():
        raise DataError(
            f"There is no folder {root!r}; set data.root to a saved folder, or to the name of a "
            "data set on the hub, such as OWNER/NAME."
        )
    try:
        if saved:
            return datasets.load_from_disk(root)
        with nullcontext("") if Path(root).exists() else from_hub() as offline:
            return datasets.load_dataset(root)
    except (OSError, ValueError, RuntimeError) as error:
        if offline:
            raise DataError(
                f"The data set {root!r} is neither a folder nor in the cache of the hub, and there "
                f"is {offline}. Where there is one, run `hf download {root} --repo-type dataset "
                "--local-dir FOLDER`; then set data.root to FOLDER."
            ) from error
        raise DataError(
            f"There is no Hugging Face data set {root!r} ({error}); set data.root to a name on the "
            "hub or to a saved folder."
        ) from error


def _split(splits: Mapping[str, Any], root: str, split: Split) -> Any:
    name = choose(split, splits)
    if name is not None:
        return splits[name]
    if split == "train":
        raise DataError(f"{root} has no split 'train'; it has: {', '.join(splits)}.")
    raise no_split(split, root)


def _image_column(features: Mapping[str, Any], root: str) -> str:
    for name, feature in features.items():
        if type(feature).__name__ == "Image":
            return name
    raise DataError(f"{root} has no column of images; it has: {', '.join(features)}.")


def _labels(
    rows: Any, splits: Sequence[Any], root: str
) -> tuple[Int64[Tensor, " images"], tuple[str, ...]]:
    """Return the label of every row, and the class names, which all splits share."""
    column, dtype = _label_column(rows.features, root)
    if dtype == "ClassLabel":
        return torch.tensor(_filled(rows[column])), tuple(rows.features[column].names)
    if "int" in dtype:
        numbers = [_filled(part[column]) for part in splits if column in part.features]
        if (least := min(map(min, filter(None, numbers)))) < UNLABELLED:
            raise DataError(f"{root} has the label {least}; class numbers start from 0.")
        names = names_of(number for column in numbers for number in column)
        return torch.tensor(labels_of(_filled(rows[column]), names)), tuple(names)
    if dtype in _TEXTS:
        return _of_names(rows[column], [part[column] for part in splits if column in part.features])
    if column:
        raise DataError(
            f"The column 'label' of {root} holds {dtype or 'lists'}, which are no classes: make it "
            "a ClassLabel, whole numbers or names, or call it something else."
        )
    return torch.full((len(rows),), UNLABELLED), ()


def _label_column(features: Mapping[str, Any], root: str) -> tuple[str, str]:
    """Return name and type of the column of labels; empty without one. Warn if it is uncertain."""
    types = {
        name: "ClassLabel"
        if type(feature).__name__ == "ClassLabel"
        else str(getattr(feature, "dtype", ""))
        for name, feature in features.items()
    }
    known = [name for name, kind in types.items() if kind == "ClassLabel"] or [
        name
        for name in LABEL_COLUMNS
        if name in types and ("int" in types[name] or types[name] in _TEXTS or name == "label")
    ]
    if len(known) > 1:
        _warn(
            f"{root} has several columns of labels, {', '.join(known)}: {known[0]!r} is read. For "
            "another one, remove those before it by `remove_columns`, and save the data set."
        )
    others = [name for name in features if name != _image_column(features, root)]
    if others and not known:
        _warn(
            f"{root} has no column that is read as labels, so that its images are unlabelled; "
            f"beside the images it has: {', '.join(others)}. Rename the one of the labels to "
            "'label' if there is one."
        )
    return (known[0], types[known[0]]) if known else ("", "")


@cache
def _warn(sentence: str) -> None:
    """Warn once, not for every split of a data set."""
    LOGGER.warning(sentence)


def _of_names(
    labels: Sequence[str | None], splits: Sequence[Sequence[str | None]]
) -> tuple[Int64[Tensor, " rows"], tuple[str, ...]]:
    """Return the labels of rows whose classes are called by their names, sorted."""
    names = sorted({name for column in splits for name in column if name})
    positions = {name: i for i, name in enumerate(names)}
    numbers = [positions[name] if name else UNLABELLED for name in labels]
    return torch.tensor(numbers), tuple(names)


def _filled(column: Any) -> list[int]:
    """Return the class numbers of a column, -1 (`UNLABELLED`) where it has none."""
    return [UNLABELLED if label is None else label for label in column]


def _as_bytes(rows: Any, column: str) -> Any:
    """Return the rows with encoded images, for decoding to apply EXIF orientation and mode."""
    from datasets import Image

    return rows.cast_column(column, Image(decode=False))


def _files(rows: Any, column: str, root: str) -> list[Path]:
    """Return the image file of every row of a folder; empty if rows hold images themselves."""
    if not Path(root).is_dir() or not len(rows) or rows[0][column]["bytes"] is not None:
        return []
    images = rows[column]
    if any(image["bytes"] is not None for image in images):
        return []
    return [Path(image["path"]) for image in images]


def _check_files(
    files: Sequence[Path], top: Path
) -> tuple[Int64[Tensor, "rows 2"], dict[int, str], list[str]]:
    """Decode files that have changed; return sides, row → reason for unusable ones, and digests.

    The fingerprint of the rows does not tell that the content of a file has changed.
    """
    outside = {
        i: f"row {i}: {file} is outside of the data set's folder {top}"
        for i, file in enumerate(files)
        if not is_inside(file, top)
    }
    inside = [i for i in range(len(files)) if i not in outside]
    sides, contents, broken = torch.zeros(len(files), 2).long(), [""] * len(files), dict(outside)
    checked = check([files[i] for i in inside], top, "skip") if inside else None
    for place, i in enumerate(inside):
        assert checked is not None
        result, contents[i] = checked.results[place], checked.contents[place]
        if isinstance(result, str):
            broken[i] = f"row {i}: {result}"
        else:
            sides[i] = torch.tensor(result)
    return sides, dict(sorted(broken.items())), contents


def _check(
    rows: Any, column: str, root: str
) -> tuple[Int64[Tensor, "rows 2"], dict[int, str], list[str]]:
    """Decode every image; return sides, row → reason for unreadable ones, and digests."""
    import datasets

    # A second run finds the result by the fingerprint of the data. It lies in the user's cache and
    # not beside the data, the default of `map`, since their folder may be read-only.
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "understudy"
    cache.mkdir(parents=True, exist_ok=True)
    results = rows.map(
        _result,
        input_columns=column,
        fn_kwargs={"top": root if Path(root).is_dir() else ""},
        remove_columns=rows.column_names,
        # Another number for other columns of results: a file of earlier ones is not read.
        cache_file_name=str(cache / f"{rows._fingerprint}-3.arrow"),
        desc="Checking images",
    )
    broken = {i: f"row {i}: {reason}" for i, reason in enumerate(results["reason"]) if reason}
    sides = torch.tensor([list(results["height"]), list(results["width"])]).T
    warn_of_depth(results["depth"], root)
    return sides, broken, list(results["content"])


def _result(image: Mapping[str, Any], top: str) -> dict[str, Any]:
    """Return height, width and digest of an encoded image, or why it cannot be used.

    Args:
        image: Its bytes or path.
        top: Folder that must hold its file; empty for a data set of the hub.
    """
    path = image["path"] or ""
    if image["bytes"] is None and top and not is_inside(Path(path), Path(top)):
        reason = f"{path} is outside of the data set's folder {top}"
        return {"height": 0, "width": 0, "depth": [0, 0], "content": "", "reason": reason}
    try:
        pixels, depth = _measured(image)
    except DataError as error:
        return {"height": 0, "width": 0, "depth": [0, 0], "content": "", "reason": str(error)}
    height, width = pixels.shape[1:]
    content = content_digest(image["bytes"] or Path(path).read_bytes())
    return {"height": height, "width": width, "depth": depth, "content": content, "reason": ""}


def _measured(image: Mapping[str, Any]) -> tuple[UInt8[Tensor, "3 height width"], tuple[int, int]]:
    """Return an encoded image and its depth; see `data._image.measured`."""
    if image["bytes"] is None:
        return measured(Path(image["path"]))
    return measured(BytesIO(image["bytes"]), name=image["path"] or "an image")
