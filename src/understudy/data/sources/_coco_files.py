"""Find the JSON file of each split in a folder of COCO's format, and the folder of its images."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.data.source import Split
from understudy.data.sources._named_files import is_file, is_plain, named, named_in
from understudy.data.sources._splits import TEST_NAMES, choose, existing, no_split
from understudy.errors import DataError
from understudy.files import refuse_address

_SPLITS = {"train": "train", "trainval": "train"} | {name: name for name in TEST_NAMES}
"""Words in the name of a file or folder → split."""
_OTHER_CONTENT = re.compile(r"(captions|person_keypoints|stuff|panoptic|image_info)_.*")
"""Names of the files that COCO publishes beside those with boxes."""
_USUAL = re.compile(r"instances_.*|_annotations\.coco|annotations|labels|result|coco")
"""Names that programs give a file of one split, or of all images."""
_IMAGE_FOLDERS = ("images", "data", "JPEGImages")


@dataclass(frozen=True)
class CocoFiles:
    """The JSON files of a data set.

    Attributes:
        top: Folder of the data set.
        by_split: Name of a split → the JSON files that could describe it.
    """

    top: Path
    by_split: Mapping[str, Sequence[Path]]

    def json_file(self, split: Split) -> Path:
        """Return the JSON file of a split.

        Raises:
            NoSplit: There is none.
            DataError: There are several, or none for training.
        """
        name = choose(split, self.by_split)
        if name is None and split != "train":
            raise no_split(split, str(self.top))
        if name is None:
            raise DataError(
                f"{self.top} has neither annotations/instances_train*.json nor "
                "train/_annotations.coco.json, or another JSON file with 'train' in its name"
                f"{self._listed(self._all())}; set data.root to a folder in the layout of COCO, or "
                "to its JSON file."
            )
        files = _preferred(self.by_split[name])
        if len(files) > 1:
            several = " and ".join(sorted(str(file.relative_to(self.top)) for file in files[:9]))
            raise DataError(
                f"{self.top} has {several}: keep one file for the split {name!r}, or set data.root "
                "to the right one."
            )
        return files[0]

    def _all(self) -> list[Path]:
        return sorted(file for files in self.by_split.values() for file in files)

    def _listed(self, files: Sequence[Path]) -> str:
        names = [str(file.relative_to(self.top)) for file in files[:5]]
        return f", only {', '.join(names)}" if names else ""


def find(root: str) -> CocoFiles:
    """Find the JSON files of a data set, by their names alone.

    Args:
        root: Folder of the data set, or the JSON file of all its images, which are for training.

    Raises:
        DataError: There is no such folder or file.
    """
    refuse_address(root, "data.root")
    if root and is_file(Path(root)):
        file = Path(root)
        above = file.parent.name.lower() == "annotations"
        return CocoFiles(file.parent.parent if above else file.parent, {"train": [file]})
    top = existing(root, "a folder in the layout of COCO")
    by_split: dict[str, list[Path]] = {}
    for file in _candidates(top):
        by_split.setdefault(_split_of(file, top), []).append(file)
    unnamed = by_split.pop("", [])
    if unnamed and not by_split:
        by_split["train"] = unnamed
    return CocoFiles(top, by_split)


def _candidates(top: Path) -> list[Path]:
    patterns = ("*.json", "*/*.json", "*/[aA]nnotations/*.json", "[aA]nnotations/*/*.json")
    files = {file for pattern in patterns for file in top.glob(pattern) if is_file(file)}
    return sorted(
        file
        for file in files
        if not any(part.startswith(".") for part in file.relative_to(top).parts)
        and not _OTHER_CONTENT.fullmatch(file.stem)
    )


def _split_of(file: Path, top: Path) -> str:
    """Return the split that the name of a file, or else of a folder above it, has in it."""
    for name in (file.stem, *reversed(file.relative_to(top).parts[:-1])):
        # instances_train2017, train-annotations, trainAnnotations
        apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        splits = {_SPLITS[word] for word in re.split(r"[^a-z]+", apart) if word in _SPLITS}
        if splits:
            return splits.pop() if len(splits) == 1 else ""
    return ""


def _preferred(files: Sequence[Path]) -> list[Path]:
    """Return the files whose name says that they are annotations; all if none does."""
    usual = [
        file
        for file in files
        if _USUAL.fullmatch(file.stem.lower()) or _split_of(file, file.parent)
    ]
    return usual or list(files)


def image_folder(files: CocoFiles, file: Path, names: Sequence[str]) -> Path:
    """Return the folder of a file's images: of several that have one of them, that with most.

    Args:
        files: The data set.
        file: JSON file of a split.
        names: File names in it.

    Raises:
        DataError: A name is outside of the data set's folder, or no image exists.
    """
    candidates = list(dict.fromkeys(_candidate_folders(files.top, file)))
    for name in names:
        if not is_plain(name):
            named_in(candidates, name, files.top, by=str(file))
    matches = [
        folder for folder in candidates if folder.is_dir() and any(_exist(folder, names, files.top))
    ]
    if not matches:
        raise DataError(
            f"None of the {len(names)} images in {file} exists; put them into {candidates[0]}."
        )
    if len(matches) == 1:
        return matches[0]
    return max(matches, key=lambda folder: sum(_exist(folder, names, files.top)))


def _exist(folder: Path, names: Sequence[str], top: Path) -> Iterable[bool]:
    paths = (named(folder, name, top) for name in names)
    return (path is not None and is_file(path) for path in paths)


def _candidate_folders(top: Path, file: Path) -> Iterable[Path]:
    """Yield the folders that may have the images of a file, the likeliest first."""
    above = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    if above != top and top in above.parents:
        yield from (above, *(above / name for name in _IMAGE_FOLDERS))
    for name in folder_names(file, top):
        yield from (top / name, *(top / inner / name for inner in _IMAGE_FOLDERS))
    yield from (*(top / name for name in _IMAGE_FOLDERS), top, file.parent)


def folder_names(file: Path, top: Path) -> list[str]:
    """Return the names that the folder of a file's images may have: `train2017`, `train`."""
    name = file.stem.removeprefix("instances_")
    split = _split_of(file, top)
    of_split = (split, f"{split}_images", f"images_{split}") if split else ()
    names = (name, name.rstrip("0123456789"), *of_split)
    return [each for each in dict.fromkeys(names) if each]
