"""Files of annotations with random damage: each is read, or refused by an error of our own."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from understudy.data.sources import coco, csv, voc, yolo
from understudy.errors import DataError

Paint = Callable[..., Path]
BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>"
FILES: dict[str, tuple[Any, str, str]] = {
    # module, file that is damaged, its content
    "voc": (voc, "1.xml", f"<annotation><object><name>cat</name>{BOX}</object></annotation>"),
    "yolo": (yolo, "1.txt", "0 0.5 0.5 0.2 0.3\n1 0.1 0.2 0.3 0.1 0.5 0.6\n"),
    "yolo.yaml": (yolo, "data.yaml", "path: .\ntrain: train\nnames: [cat, dog]\nnc: 2\n"),
    "csv": (csv, "data.csv", "path,label,split\ntrain/0.png,cat,train\ntrain/1.png,dog,test\n"),
    "columns": (csv, "data.csv", "file_name,cat,dog\n0.png,1,0\n1.png,nan,1\n2.png,0,1\n"),
    "celeba": (csv, "data.csv", "3\ncat dog\n0.png 1 -1\n1.png 1 1\n2.png -1 -1\n"),
}
PIECES = (b"", b"-", b"9" * 400, b"nan", b"1e999", b",", b";", b'"', b"\n", b"\0", b"<", b"[", b"{")
PIECES += ("é".encode(), b"../", b"/", b":", b"&a ", b"*a", b"!!python/name:os ", b"</object>")


def damaged(content: bytes, random_: random.Random) -> bytes:
    """Replace some short parts of a file by pieces that mean something to a parser."""
    for _ in range(random_.randint(1, 4)):
        start = random_.randrange(len(content) + 1)
        end = start + random_.choice((0, 0, 1, 8))
        content = content[:start] + random_.choice(PIECES) + content[end:]
    return content


def prepare(root: Path, paint: Paint) -> None:
    for i in range(3):
        paint(f"train/{i}.png")
        (root / f"train/{i}.xml").write_text(FILES["voc"][2])
        (root / f"train/{i}.txt").write_text(FILES["yolo"][2])
    (root / "data.yaml").write_text(FILES["yolo.yaml"][2])


@pytest.mark.parametrize("name", FILES)
def test_damage_is_read_or_refused(name: str, tmp_path: Path, paint: Paint) -> None:
    prepare(tmp_path, paint)
    module, file, content = FILES[name]
    path = tmp_path / file if file.startswith("data") else tmp_path / "train" / file
    root = path if module is csv else tmp_path
    random_, loaded = random.Random(0), 0
    for _ in range(25):
        path.write_bytes(damaged(content.encode(), random_))
        try:
            source = module.load(str(root), "train")
        except DataError:
            continue
        loaded += 1
        assert len(source) <= 3
        assert source.target(len(source) - 1) is None or source.labels.ndim == 2
    assert 0 < loaded <= 25


VALUES = (None, "", -1, 1.5, "1,5", float("nan"), 10**400, True, [], {}, "../x", "a\0b", "\ud800")


def damaged_json(content: Any, random_: random.Random) -> Any:
    """Replace, remove or repeat one value somewhere in a nested structure."""
    node = content
    while True:
        key = random_.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or random_.random() < 0.3:
            break
        node = node[key]
    action = random_.randrange(4)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = random_.choice(VALUES)
    return content


def test_damaged_json_is_read_or_refused(tmp_path: Path, paint: Paint) -> None:
    prepare(tmp_path, paint)
    random_, loaded = random.Random(0), 0
    for _ in range(60):
        content = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 80} for i in range(3)],
            "annotations": [
                {"image_id": i, "category_id": 1, "bbox": [1, 2, 9, 9], "iscrowd": 0, "area": 81}
                for i in range(3)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        text = json.dumps(damaged_json(content, random_))
        (tmp_path / "train/_annotations.coco.json").write_text(text)
        try:
            source = coco.load(str(tmp_path), "train")
        except DataError:
            continue
        loaded += 1
        assert all(
            len(source.target(i)["boxes"]) for i in range(len(source)) if source.labels[i].any()
        )
    assert loaded > 20
