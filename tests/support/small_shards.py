"""Small images in shards of tar files, as WebDataset writes them."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

PER_SHARD = 5


def shards(
    folder: Path,
    images: Mapping[str, int],
    *,
    side: int = 72,
    labels: str = "cls",
    classes: int = 2,
) -> Path:
    """Write shards of a few images for each split; image i is of class i % `classes`.

    Args:
        folder: Where they are written.
        images: Images of each split.
        side: Side of the images in pixels.
        labels: `cls` or `json`, how labels are written; empty for none.
        classes: Number of classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in images.items():
        for first in range(0, count, PER_SHARD):
            with tarfile.open(folder / f"{split}-{first // PER_SHARD:03d}.tar", "w") as tar:
                for i in range(first, min(first + PER_SHARD, count)):
                    add(tar, f"{i:04d}.png", picture(i, side))
                    if labels == "cls":
                        add(tar, f"{i:04d}.cls", str(i % classes).encode())
                    elif labels:
                        content = {"label": f"class{i % classes}", "caption": "a noise"}
                        add(tar, f"{i:04d}.json", json.dumps(content).encode())
    return folder


def picture(i: int, side: int) -> bytes:
    """A picture of noise around a grey that tells its number."""
    noise = np.random.default_rng(i).integers(0, 9, (side, side, 3))
    Image.fromarray((noise + i * 4 % 240).astype(np.uint8)).save(stored := io.BytesIO(), "PNG")
    return stored.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an open tar file."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def parquet_files(
    folder: Path, images: Mapping[str, int], *, side: int = 72, typed: bool = True, group: int = 2
) -> Path:
    """Write parquet files of five images for each split, in row groups of `group`.

    Args:
        folder: Where they are written.
        images: Images of each split.
        side: Side of the images in pixels.
        typed: As Hugging Face writes them, with class names; else as columns of bytes and names.
        group: Rows of a row group.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["zebra", "ant"]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in images.items():
        for first in range(0, count, PER_SHARD):
            rows = range(first, min(first + PER_SHARD, count))
            content = [picture(i, side) for i in rows]
            table = pa.table({"image": content, "label": [names[i % 2] for i in rows]})
            if typed:
                structs = [{"bytes": each, "path": None} for each in content]
                table = pa.table({"image": structs, "label": [i % 2 for i in rows]})
                table = table.replace_schema_metadata(metadata)
            file = folder / f"{split}-{first // PER_SHARD:05d}-of-00009.parquet"
            pq.write_table(table, file, row_group_size=group)
    return folder
