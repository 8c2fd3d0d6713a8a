"""The file that describes a data set in YOLO's format: class names, and images of each split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from understudy.data._image import SUFFIXES
from understudy.data.source import Split
from understudy.data.sources._listing import list_images
from understudy.data.sources._named_files import is_file, is_inside, named, named_in
from understudy.data.sources._splits import SPLIT_NAMES, choose, existing, no_split
from understudy.data.sources._values import key
from understudy.errors import DataError
from understudy.files import refuse_address

_USUAL = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NOTHING: tuple[Any, ...] = (None, "", "~", "null", [])


@final
class _Loader(yaml.BaseLoader):
    """Reads every value as text, since classes may be called `no` or `010`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; refuse a key that is given twice, of which one would be lost."""
        keys = [key_node.value for key_node, _ in node.value]
        if twice := [each for each in keys if keys.count(each) > 1]:
            raise yaml.YAMLError(f"the key {str(twice[0])[:40]!r} is given twice")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class SplitImages:
    """Image files of a split.

    Attributes:
        paths: The files, in order.
        folders: Folders that are taken whole: a label file in them without image is a fault.
        skipped: What was left out in these folders, each with the reason.
    """

    paths: Sequence[Path]
    folders: Sequence[Path]
    skipped: Sequence[str]


@dataclass(frozen=True)
class YoloData:
    """Content of the file that describes a data set.

    Attributes:
        file: The file; all images are below its folder.
        classes: Class names, in the order of their numbers.
        keypoints: Numbers that follow the four of a box in every line; 0 if none do.
        entries: Name of a split → folders and lists of its images.
    """

    file: Path
    classes: tuple[str, ...]
    keypoints: int
    entries: Mapping[str, Sequence[str]]
    base: str

    @property
    def top(self) -> Path:
        """Folder of the data set."""
        return self.file.parent

    def images(self, split: Split) -> SplitImages:
        """Return the images of a split.

        Raises:
            NoSplit: The file does not name the split.
            DataError: What it names does not exist, or is outside of the folder.
        """
        name = choose(split, self.entries)
        if name is None and split == "train":
            raise DataError(f"{self.file} names no images for 'train'; put their folder there.")
        if name is None:
            raise no_split(split, str(self.file))
        paths, folders, skipped = list[Path](), list[Path](), list[str]()
        for entry in self.entries[name]:
            path = self._resolved(entry, name)
            if path.is_dir():
                listing = list_images(path, deep=True)
                paths += listing.images
                skipped += listing.skipped
                folders.append(path)
            else:
                paths += self._listed(path)
        if not paths:
            raise DataError(f"{self.file} names no image for {name!r} in {self.entries[name]}.")
        # A folder and a list may both have an image, which is no fault.
        return SplitImages(list(dict.fromkeys(paths)), folders, skipped)

    @property
    def _bases(self) -> list[Path]:
        """Return the folders that entries are relative to: `path` and that of the file."""
        path = self.top / self.base
        return [path, self.top] if path.is_dir() and is_inside(path, self.top) else [self.top]

    def _resolved(self, entry: str, split: str) -> Path:
        """Return the folder or list that an entry names."""
        # Roboflow writes `../train/images` where it means `train/images`, as Ultralytics reads it.
        names = [entry, entry.removeprefix("../")]
        places = [(base, name) for name in names for base in self._bases]
        paths = [path for base, name in places if (path := named(base, name, self.top))]
        if not paths:
            named_in(self._bases, entry, self.top, by=f"{self.file}, {split}:")
        for path in paths:
            if path.is_dir() or (is_file(path) and path.suffix.lower() == ".txt"):
                return path
        unused = self.base and len(self._bases) == 1
        reason = (
            f" (path: {self.base!r} is no folder inside of {self.top}, where this file lies: put "
            "it into the folder of the images)"
            if unused
            else ""
        )
        raise DataError(
            f"{self.file} names {entry!r} for {split!r}, but {paths[0]} is no folder of images and "
            f"no list of them (.txt){reason}; put them there, or correct or remove the entry."
        )

    def _listed(self, file: Path) -> list[Path]:
        """Return the images that a list names, each relative to the list or to the data set."""
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is no list of images in UTF-8: {error}.") from error
        paths = list[Path]()
        for line, name in enumerate(map(str.strip, lines), 1):
            if not name:
                continue
            by = f"{file}, line {line},"
            candidates = named_in((file.parent, *self._bases), name, self.top, by=by)
            if Path(name).suffix.lower() not in SUFFIXES:
                raise DataError(f"{by} names {name!r}, which does not end like an image.")
            paths.append(next(filter(is_file, candidates), candidates[0]))
        return paths


def read(root: str) -> YoloData:
    """Read the file that describes a data set.

    Args:
        root: The file, or the folder that holds it.

    Raises:
        DataError: There is none, it is not YAML, or lacks class names.
    """
    refuse_address(root, "data.root")
    file = Path(root) if root and is_file(Path(root)) else _yaml_in(root)
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is not YAML: {reason}.") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DataError(f"{file} has no keys; it needs 'names' and 'train'.")
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    return YoloData(
        file,
        _classes(file, content),
        _keypoints(file, content),
        {
            name: _entries(file, name, content[name])
            for name in sorted(splits)
            if content.get(name) not in _NOTHING
        },
        base=_text(file, content, "path"),
    )


def _yaml_in(root: str) -> Path:
    top = existing(root, "a folder with a data.yaml")
    files = sorted(
        path for path in top.iterdir() if path.suffix.lower() in (".yaml", ".yml") and is_file(path)
    )
    usual = [path for path in files if path.name.lower() in _USUAL]
    files = usual or files
    if not files:
        raise DataError(
            f"{root} has no data.yaml; write one with class names and the folders of images, as in "
            "'names: [cat, dog]' and 'train: images/train'."
        )
    if len(files) > 1:
        several = " and ".join(path.name for path in files[:9])
        raise DataError(f"{root} has {several}: set data.root to the right one.")
    return files[0]


def _classes(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names: a list, or a dictionary from 0, 1, … to names."""
    names, count = content.get("names"), key(_text(file, content, "nc"))
    if names in _NOTHING and isinstance(count, int) and 0 < count <= 10**6:
        return tuple(map(str, range(count)))
    if isinstance(names, dict):
        numbers = {key(number): name for number, name in names.items()}
        if set(numbers) != set(range(len(names))):
            raise DataError(
                f"{file} numbers its classes {', '.join(list(names)[:9])}; number them 0, 1, … "
                "without gaps."
            )
        names = [numbers[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise DataError(f"{file} has no class names: write them as in 'names: [cat, dog]'.")
    classes = tuple(name.strip() for name in names)
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"{file} names the class {twice!r} twice; give each a name of its own.")
    if count not in (*_NOTHING, len(classes)):
        raise DataError(f"{file} has nc: {count}, but {len(classes)} names; correct one of them.")
    return classes


def _text(file: Path, content: Mapping[str, Any], name: str) -> str:
    """Return the text of a key; empty if it is missing."""
    value = content.get(name, "")
    if not isinstance(value, str):
        raise DataError(f"{file} has a value of {name!r} that is no text.")
    return value


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name.strip())


def _keypoints(file: Path, content: Mapping[str, Any]) -> int:
    shape = content.get("kpt_shape")
    if shape in _NOTHING:
        return 0
    sides = [key(side) if isinstance(side, str) else 0 for side in shape or ()]
    numbers = [side for side in sides if isinstance(side, int) and 0 < side < 1000]
    if len(numbers) != 2 or len(sides) != 2:
        raise DataError(f"{file} has a kpt_shape that is no list of two numbers.")
    return numbers[0] * numbers[1]


def _entries(file: Path, split: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each for each in entries):
        raise DataError(
            f"{file} has a value of {split!r} that is neither a folder nor a list of folders."
        )
    return [str(each) for each in entries]
