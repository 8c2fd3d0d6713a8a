import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from understudy.batch import UNLABELLED
from understudy.data import FileSource, MemorySource
from understudy.data._image import SUFFIXES
from understudy.data.sources import folder
from understudy.errors import DataError

Paint = Callable[..., Path]


def test_class_folders_are_labels(tree: Path) -> None:
    train, test = folder.load(str(tree), "train"), folder.load(str(tree), "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 1]
    assert train.image(2).shape == (3, 70, 82)
    assert (train.pixels, train.size, train.skipped) == (None, None, ())


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_names_of_the_test_split(tree: Path, name: str) -> None:
    (tree / "val").rename(tree / name)
    assert len(folder.load(str(tree), "test")) == 2


def test_images_without_class_folders_are_unlabelled(tmp_path: Path, paint: Paint) -> None:
    for i in range(3):
        paint(f"{i}.JPG", seed=i)
    source = folder.load(str(tmp_path), "train")
    assert source.labels.tolist() == [UNLABELLED] * 3
    assert source.classes == ()


def test_train_folder_may_be_unlabelled_too(tmp_path: Path, paint: Paint) -> None:
    paint("train/a.png")
    assert folder.load(str(tmp_path), "train").labels.tolist() == [UNLABELLED]


def test_unlabelled_training_may_have_a_labelled_test(tree: Path, paint: Paint) -> None:
    shutil.rmtree(tree / "train")
    paint("train/a.png")
    train, test = folder.load(str(tree), "train"), folder.load(str(tree), "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([UNLABELLED], [0, 1])


def test_classes_directly_in_the_root(tmp_path: Path, paint: Paint) -> None:
    paint("b/deep/1.png")
    paint("a/1.png")
    source = folder.load(str(tmp_path), "train")
    assert (source.classes, source.labels.tolist()) == (("a", "b"), [0, 1])


def test_a_test_split_may_lack_a_class_and_keeps_the_numbers(tree: Path) -> None:
    shutil.rmtree(tree / "val" / "cat")
    assert folder.load(str(tree), "test").labels.tolist() == [1]


def test_other_files_are_ignored(tree: Path) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("three cats")
    (tree / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (tree / "train" / ".thumbnails").mkdir()
    assert len(folder.load(str(tree), "train")) == 6


def test_small_images_are_read_into_memory_once(tmp_path: Path, paint: Paint) -> None:
    for i in range(4):
        paint(f"train/{'ab'[i % 2]}/{i}.png", seed=i, size=(32, 32))
    first = folder.load(str(tmp_path), "train")
    assert isinstance(first, MemorySource)
    assert first.size == 32
    (cache,) = tmp_path.glob(".understudy-pixels-*.npy")
    written = cache.stat().st_mtime_ns
    again = folder.load(str(tmp_path), "train")
    assert again.digest == first.digest
    assert cache.stat().st_mtime_ns == written
    paint("train/a/0.png", seed=9, size=(32, 32))
    changed = folder.load(str(tmp_path), "train")
    assert changed.digest != first.digest
    assert torch.equal(changed.pixels[1:], first.pixels[1:])  # type: ignore[index]


@pytest.fixture
def damaged(tree: Path) -> Path:
    """The tree with a truncated image, a text called image and an empty file."""
    whole = tree / "train/cat/1.png"
    whole.write_bytes(whole.read_bytes()[:200])
    (tree / "train/dog/text.jpg").write_text("not an image")
    (tree / "train/dog/void.webp").write_bytes(b"")
    return tree


def test_unreadable_files_are_skipped_and_named(damaged: Path) -> None:
    for _ in range(2):  # the second time from the record of the check
        source = folder.load(str(damaged), "train")
        assert isinstance(source, FileSource)
        assert source.labels.tolist() == [0, 0, 1, 1, 1]
        assert len(source.skipped) == 3
        for name, line in zip(("1.png", "text.jpg", "void.webp"), source.skipped, strict=True):
            assert name in line
        assert all(source.image(i).shape[0] == 3 for i in range(len(source)))


def test_unreadable_files_fail_on_request(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"3 of 8 files cannot be read, first: .*1\.png"):
        folder.load(str(damaged), "train", unreadable="fail")


def test_a_repaired_file_is_checked_again(damaged: Path, paint: Paint) -> None:
    assert len(folder.load(str(damaged), "train")) == 5
    paint("train/cat/1.png")
    assert len(folder.load(str(damaged), "train")) == 6


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match="None of the 1 image files"):
        folder.load(str(tmp_path), "train")


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_record_only_costs_a_new_check(tree: Path, content: str) -> None:
    record = tree / ".understudy-check.json"
    record.write_text(content)
    assert len(folder.load(str(tree), "train")) == 6
    assert len(json.loads(record.read_text())) == 6


def test_digest_follows_the_data_and_not_the_place(tree: Path, paint: Paint) -> None:
    first = folder.load(str(tree), "train").digest
    moved = tree.rename(tree.with_name("moved"))
    assert folder.load(str(moved), "train").digest == first
    assert len(first) == 16
    (moved / "train/cat/0.png").unlink()
    assert folder.load(str(moved), "train").digest != first


@pytest.mark.parametrize(
    ("root", "place"),
    [("", ""), ("nowhere/at/all", f" as seen from the present folder {Path.cwd()}")],
)
def test_missing_folder(root: str, place: str) -> None:
    with pytest.raises(DataError, match=rf"There is no folder '{root}'{place}; set data\.root"):
        folder.load(root, "train")


def test_no_test_split_points_to_validation(tmp_path: Path, paint: Paint) -> None:
    paint("train/a/1.png")
    with pytest.raises(DataError, match=r"has no test split .* set data\.validation"):
        folder.load(str(tmp_path), "test")


def test_no_train_split(tmp_path: Path, paint: Paint) -> None:
    paint("val/a/1.png")
    with pytest.raises(DataError, match="no folder 'train'"):
        folder.load(str(tmp_path), "train")


def test_empty_class_folder_is_named(tree: Path) -> None:
    (tree / "train/bird").mkdir()
    with pytest.raises(
        DataError, match=r"class folder .*bird holds no images; add some, or remove"
    ):
        folder.load(str(tree), "train")


def test_empty_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        folder.load(str(tmp_path), "train")


def test_images_beside_class_folders(tree: Path, paint: Paint) -> None:
    paint("train/stray.png")
    with pytest.raises(DataError, match=r"1 images beside them \(stray\.png"):
        folder.load(str(tree), "train")


def test_unknown_class_in_the_test_split(tree: Path, paint: Paint) -> None:
    paint("val/bird/0.png")
    with pytest.raises(DataError, match="has the class 'bird', which the training images lack"):
        folder.load(str(tree), "test")


def test_grey_and_palette_images_mix_with_colour(tree: Path) -> None:
    Image.new("L", (80, 70), 7).save(tree / "train/cat/3.png")
    assert folder.load(str(tree), "train").image(3).shape == (3, 70, 80)


def test_linked_folders_inside_a_class_are_read(tree: Path, paint: Paint) -> None:
    paint("elsewhere/linked.png")
    (tree / "train/cat/more").symlink_to(tree / "elsewhere")
    (tree / "train/cow").symlink_to(tree / "elsewhere")
    source = folder.load(str(tree), "train")
    assert source.classes == ("cat", "cow", "dog")
    assert source.labels.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


def test_links_that_lead_nowhere_are_said(tree: Path) -> None:
    (tree / "train/cat/self.png").symlink_to("self.png")
    (tree / "train/cat/gone.png").symlink_to("nothing.png")
    (tree / "train/dog/up").symlink_to(tree / "train")
    (tree / "train/loop").symlink_to("loop")
    source = folder.load(str(tree), "train")
    assert (len(source), source.classes) == (6, ("cat", "dog"))
    assert any("up is a link to a folder that contains it" in line for line in source.skipped)
    for name in ("self.png", "gone.png", "loop"):
        assert any(f"{name} is a link to itself or to nothing" in line for line in source.skipped)
    with pytest.raises(DataError, match=r"files cannot be read, first: .* is a link to"):
        folder.load(str(tree), "train", unreadable="fail")


def test_a_link_to_a_folder_above_is_said(tree: Path) -> None:
    (tree / "train/dog/again").symlink_to(tree / "train/dog")
    source = folder.load(str(tree), "train")
    assert (len(source), len(source.skipped)) == (6, 1)
    assert "is a link to a folder that contains it" in source.skipped[0]


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".cache"])
def test_folders_of_programs_are_ignored(tree: Path, paint: Paint, name: str) -> None:
    for place in ("train", "train/cat", "val"):
        paint(f"{place}/{name}/copy.png")
    assert folder.load(str(tree), "train").labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert folder.load(str(tree), "test").classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "Unlabelled"])
def test_unlabelled_is_no_class(tree: Path, paint: Paint, name: str) -> None:
    paint(f"train/{name}/deep/0.png")
    source = folder.load(str(tree), "train")
    assert source.classes == ("cat", "dog")
    assert sorted(source.labels.tolist()) == [UNLABELLED, 0, 0, 0, 1, 1, 1]
    shutil.rmtree(tree / "train/cat")
    shutil.rmtree(tree / "train/dog")
    assert folder.load(str(tree), "train").labels.tolist() == [UNLABELLED]


def test_images_of_phones_are_counted(tree: Path) -> None:
    (tree / "train/cat/a.HEIC").write_bytes(b"a photo")
    source = folder.load(str(tree), "train")
    assert len(source) == 6
    assert len(source.skipped) == 1
    if ".heic" not in SUFFIXES:
        assert "a.HEIC needs the package pillow-heif" in source.skipped[0]
        (tree / "train/cow").mkdir()
        (tree / "train/cow/b.heif").write_bytes(b"a photo")
        with pytest.raises(DataError, match=r"cow holds no images that can be read: 1 .*pillow"):
            folder.load(str(tree), "train")


def test_loose_images_may_be_listed(tree: Path, paint: Paint) -> None:
    paint("train/stray.png")
    with pytest.raises(DataError, match="or list paths and labels in a CSV file"):
        folder.load(str(tree), "train")


@pytest.mark.parametrize(
    "names",
    [
        ("Train/cat", "Train/dog", "Test/cat"),
        ("Training/cat", "Testing/cat"),
        ("TRAIN/cat", "TRAIN/dog"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        ("train/cat/train", "train/cat/val"),
    ],
)
def test_splits_are_no_classes(tmp_path: Path, paint: Paint, names: tuple[str, ...]) -> None:
    for name in names:
        paint(f"{name}/0.png")
    with pytest.raises(DataError, match="look like splits and not like classes: call them train"):
        folder.load(str(tmp_path), "train")


@pytest.mark.parametrize("name", ["a.jp2", "A.DNG", "a.tga"])
def test_images_of_formats_that_are_not_read_are_counted(tree: Path, name: str) -> None:
    (tree / "train/cat" / name).write_bytes(b"pixels")
    source = folder.load(str(tree), "train")
    assert len(source) == 6
    assert source.skipped == (
        f"{tree}/train/cat/{name} is in a format that is not read: save it as PNG or JPEG",
    )
    with pytest.raises(DataError, match="1 files cannot be read, first: "):
        folder.load(str(tree), "train", unreadable="fail")
