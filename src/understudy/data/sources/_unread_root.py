"""Refuse a `data.root` that a source does not read, and name the source that does."""

from pathlib import Path

from understudy.errors import DataError

_PATTERNS = {
    "yolo": ("data.yaml", "data.yml"),
    "voc": ("Annotations", "*/Annotations", "train/*.xml"),
    "coco": ("annotations/*.json", "*/_annotations.coco.json"),
    "webdataset": ("*.tar", "*/*.tar"),
    "parquet": ("*.parquet", "*/*.parquet"),
}
"""Sources → what lies in a folder that they read, and that no other one reads."""


def unread(root: str, source: str, images: str) -> DataError:
    """Return the error for a root that a source does not read.

    Args:
        root: What `data.root` names.
        source: Name of the source.
        images: What the source gives instead, such as `its images are drawn`.
    """
    reader = reader_of(Path(root))
    remedy = (
        f"Add --data.source {reader}, which reads it."
        if reader
        else "Name the source that reads it, such as --data.source folder, or leave it out."
    )
    return DataError(f"The source {source!r} does not read data.root={root}: {images}. {remedy}")


def reader_of(root: Path) -> str:
    """Return the source that reads what lies at a path; empty if nothing tells it."""
    if root.suffix.lower() in (".csv", ".tsv") and root.is_file():
        return "csv"
    if root.suffix.lower() in (".yaml", ".yml") and root.is_file():
        return "yolo"
    if not root.is_dir():
        return ""
    for name, patterns in _PATTERNS.items():
        if any(any(root.glob(pattern)) for pattern in patterns):
            return name
    if (root / "train").is_dir():
        root /= "train"
    # What the folders hold is told by the source itself, in its own words.
    return "folder" if any(path.is_dir() for path in root.iterdir()) else ""
