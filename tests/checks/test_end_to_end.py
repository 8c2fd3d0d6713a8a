"""Faults planted in real data and on real disks: the doctor finds them, and its words mend them.

Each recipe is examined whole, as on the command line; what the finding prints is done, by its flags
or by hand, and the finding is gone.
"""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

import understudy
from tests.support.planted_faults import SMALL, pictures, with_flags
from tests.support.planted_teachers import DataSetMaker, distillation, marks, signs, spoiled
from understudy.checks.finding import Finding
from understudy.config.recipe import Recipe

DETECTOR = {
    "name": "ssd",
    "options": {"backbone": "timm:test_resnet", "size": 64, "extra": [32, 32]},
}
CLASSES = ("cat", "dog")


def faults(recipe: Recipe, check: str, **options: Any) -> list[Finding]:
    """What the short form says of a recipe under the name of a check."""
    examination = understudy.doctor(recipe, short=True, device="cpu", **options)
    return [finding for finding in examination.faults if finding.check == check]


def write(root: Path) -> None:
    for split, seed in (("train", 0), ("test", 1)):
        pictures(root, dict.fromkeys(CLASSES, 12), split=split, seed=seed)


def folders(root: Path) -> dict[str, Any]:
    """Pictures by the names of their folders."""
    return {"data": {"source": "folder", "root": str(root)}}


def table(root: Path) -> dict[str, Any]:
    """Pictures with a column for each class."""
    lines = [f"split,file_name,{','.join(CLASSES)}"]
    for split in ("train", "test"):
        for file in _pictures(root / split):
            present = (str(int(name == file.parent.name)) for name in CLASSES)
            lines.append(",".join([split, str(file.relative_to(root)), *present]))
    (root / "table.csv").write_text("\n".join(lines))
    return {"task": "multilabel", "data": {"source": "csv", "root": str(root / "table.csv")}}


def boxes(root: Path) -> dict[str, Any]:
    """Pictures with a box each, in the layout of COCO."""
    for split in ("train", "test"):
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        for n, file in enumerate(_pictures(root / split)):
            name = str(file.relative_to(root / split))
            content["images"].append({"id": n, "file_name": name})
            kind, box = CLASSES.index(file.parent.name), [5, 5, 20 + n % 9, 20]
            content["annotations"].append({"image_id": n, "category_id": kind, "bbox": box})
        content["categories"] = [{"id": n, "name": name} for n, name in enumerate(CLASSES)]
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    data = {"source": "coco", "root": str(root), "augment": "flip"}
    training = {"training.batch": 8, "training.lr": 0.005}
    return {"task": "detection", "data": data, "student": DETECTOR, **training}


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


def leak(root: Path) -> None:
    for n in range(3):
        shutil.copy(root / f"train/cat/{n:03}.png", root / f"test/cat/copy{n}.png")


def near_leak(root: Path) -> None:
    for n in range(3):
        with Image.open(root / f"train/cat/{n:03}.png") as image:
            image.resize((36, 36)).save(root / f"test/cat/copy{n}.jpg", quality=80)


def remove_copies(root: Path) -> None:
    for file in (root / "test" / "cat").glob("copy*"):
        file.unlink()


def damage(root: Path) -> None:
    for n in range(3):
        (root / f"train/cat/{n:03}.png").write_bytes(b"no picture")


Describe = Callable[[Path], dict[str, Any]]


DESCRIBED = (folders, table, boxes)
BY_HAND = {
    "messages": (leak, "3 of the 27 test images are training images as well", remove_copies),
    "near_duplicates": (near_leak, "3 test images are nearly training", remove_copies),
    "skipped": (damage, "3 images skipped or repaired", write),
}
PAIR = (signs, marks)
BANKS = {"24k": "--bank.dtype fp16", "4k": "--bank.path ''"}
PLANTED = Counter(dict.fromkeys(BY_HAND, len(DESCRIBED))) + Counter(
    {"skipped": 1, "classes": 1, "loading": 2, "costs": len(PAIR) * (1 + len(BANKS))}
)
"""Check → number of faults that are planted here."""


@pytest.mark.parametrize("describe", DESCRIBED)
@pytest.mark.parametrize("check", BY_HAND)
def test_pictures_are_mended_by_hand(describe: Describe, check: str, tmp_path: Path) -> None:
    plant, words, undo = BY_HAND[check]
    write(tmp_path)
    plant(tmp_path)
    (finding,) = faults(Recipe.load(SMALL, describe(tmp_path)), check)
    assert words in finding.message
    assert not finding.fix
    assert "emove" in finding.remedy or "Remove" in finding.message
    undo(tmp_path)
    assert not faults(Recipe.load(SMALL, describe(tmp_path)), check)


def test_boxes_are_mended_by_hand(tmp_path: Path) -> None:
    write(tmp_path)
    recipe = Recipe.load(SMALL, boxes(tmp_path))
    file = tmp_path / "train" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    for each in content["annotations"][:3]:
        each["bbox"][0] = 30  # and half of it is outside
    file.write_text(json.dumps(content))
    (finding,) = faults(recipe, "skipped")
    assert "3 images skipped or repaired" in finding.message
    boxes(tmp_path)
    assert not faults(recipe, "skipped")


def test_objects_that_are_not_tested_are_found(tmp_path: Path) -> None:
    write(tmp_path)
    shutil.rmtree(tmp_path / "test" / "dog")
    (finding,) = faults(Recipe.load(SMALL, boxes(tmp_path)), "classes")
    assert "1 of 2 classes is not in the 12 test images: dog (12)" in finding.message
    pictures(tmp_path, {"dog": 12}, split="test", seed=5)
    assert not faults(Recipe.load(SMALL, boxes(tmp_path)), "classes")


class Slow(Dataset[tuple[Tensor, Any]]):
    """Pictures of two sizes that take a while, such as those of a disk far away."""

    classes = CLASSES

    def __init__(self, count: int, *, several: bool) -> None:
        self._several, draw = several, torch.Generator().manual_seed(count)
        sides = [40 + 4 * (n % 2) for n in range(count)]
        self._images = [
            torch.randint(256, (3, s, s), generator=draw, dtype=torch.uint8) for s in sides
        ]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        time.sleep(0.03)
        label = i // 2 % 2
        return self._images[i], [1 - label, label] if self._several else label


@pytest.mark.parametrize("several", [False, True], ids=["classes", "several classes"])
def test_slow_images_are_kept_decoded(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = "multilabel" if several else "classification"
    keys = {"task": task, "training.batch": 8, "training.epochs": 400, "data.size": 32}
    recipe = Recipe.load(SMALL, keys)
    data = Slow(32, several=several), Slow(8, several=several)
    (finding,) = faults(recipe, "loading", data=data)
    assert finding.message.startswith("Making the images takes ")
    assert finding.flags == "--data.decoded runs/decoded"
    assert not faults(with_flags(recipe, finding.flags), "loading", data=data)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of some size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(size: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("only the administrator can mount a small disk")
        return folder

    yield mounted
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def taught(data: DataSetMaker, folder: Path, **keys: Any) -> Recipe:
    return Recipe.load(SMALL, distillation(data, spoiled(data, folder, "none")) | keys)


@pytest.mark.parametrize("data", PAIR)
def test_a_full_disk_is_found_and_another_one_has_room(
    data: DataSetMaker, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe, disk = taught(data, tmp_path), small_disk("8k")
    (finding,) = faults(recipe, "costs", out=disk / "run")
    assert finding.level == "error"
    assert f"the disk of {disk / 'run'} has " in finding.message
    assert "by --out" in finding.advice
    assert not faults(recipe, "costs", out=tmp_path / "elsewhere")


@pytest.mark.parametrize("data", PAIR)
@pytest.mark.parametrize(("size", "flags"), BANKS.items())
def test_a_bank_that_does_not_fit_is_made_smaller_or_left_out(
    data: DataSetMaker, size: str, flags: str, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    keys = {"bank.path": str(small_disk(size) / "bank"), "data.augment": "none"}
    recipe = taught(data, tmp_path, **keys)
    (finding,) = faults(recipe, "costs")
    assert finding.level == "error"
    assert finding.message.startswith("The bank needs ")
    assert finding.flags == flags
    assert not faults(with_flags(recipe, finding.flags), "costs")


def test_a_bank_at_an_address_is_not_measured_by_the_disk_of_its_cache(
    small_disk: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = small_disk("4k")
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(cache))
    recipe = taught(signs, tmp_path, **{"bank.path": "memory://bank", "data.augment": "none"})
    examination = understudy.doctor(recipe, short=True, device="cpu")
    findings = [finding for finding in examination.findings if finding.check == "costs"]
    assert {finding.level for finding in findings} == {"note"}
    assert any(f"are kept in {cache}" in finding.message for finding in findings)
