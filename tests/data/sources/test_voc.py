"""Boxes in XML: both layouts, what VOC marks, and everything that can be wrong with them."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy import tasks
from understudy.batch import UNLABELLED
from understudy.config.recipe import Recipe
from understudy.data import DecodedSource, Source
from understudy.data.sources import voc
from understudy.data.subset import Subset
from understudy.errors import DataError
from understudy.experiment import build
from understudy.experiment.images import read_images

Paint = Callable[..., Path]
Thing = tuple[str, tuple[float, float, float, float]]
CAT: Thing = ("cat", (10, 12, 40, 50))
DOG: Thing = ("dog", (30, 5, 70, 60))


def thing(name: str, box: tuple[Any, ...], *, difficult: int = 0) -> str:
    corners = "".join(
        f"<{c}>{x}</{c}>" for c, x in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    # VOC names the parts of a person, with boxes of their own, inside of an object.
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return (
        f"<object><name>{name}</name>{part if name == 'person' else ''}"
        f"<difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
    )


def write(path: Path, *things: str, size: tuple[int, int] = (80, 70)) -> None:
    """An XML file; sizes are width and height, as the pictures are drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    stated = f"<size><width>{width}</width><height>{height}</height></size>"
    path.write_text(f"<annotation>{stated}{''.join(things)}</annotation>")


@pytest.fixture
def beside(tmp_path: Path, paint: Paint) -> Path:
    """Two training images of a cat, and of a cat and a dog; one of a dog for the test."""
    rows = {"train/a": (CAT,), "train/b": (CAT, DOG), "test/c": (DOG,)}
    for seed, (name, things) in enumerate(rows.items()):
        paint(f"{name}.png", seed=seed)
        write(tmp_path / f"{name}.xml", *(thing(*each) for each in things))
    return tmp_path


def load(root: Path, split: Any = "train", **choices: Any) -> Source:
    return voc.load(str(root), split, **choices)


def boxes(source: Source, i: int) -> list[list[float]]:
    return source.target(i)["boxes"].tolist()  # type: ignore[no-any-return]


def test_files_beside_their_images(beside: Path) -> None:
    train, test = load(beside), load(beside, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [[1, 0], [1, 1]]
    assert test.labels.tolist() == [[0, 1]]
    assert boxes(train, 1) == [list(CAT[1]), list(DOG[1])]
    target = train.target(1)
    assert target["labels"].tolist() == [0, 1]
    assert target["areas"].tolist() == [30 * 38, 40 * 55]
    assert target["boxes"].canvas_size == (70, 80)
    assert not target["difficult"].any()
    assert not target["crowd"].any()
    assert train.sides().tolist() == [[70, 80]] * 2
    assert train.skipped == test.skipped == ()


def devkit(root: Path, paint: Paint, year: str, lists: dict[str, list[str]]) -> None:
    for name, ids in lists.items():
        path = root / year / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{i}\n" for i in ids))
        for i in ids:
            paint(f"{root.name}/{year}/JPEGImages/{i}.jpg", seed=int(i))
            write(root / year / "Annotations" / f"{i}.xml", thing("person", (1, 2, 30, 40)))


def names(source: Any) -> list[str]:
    return [path.stem for path in source.images.paths]


def test_a_devkit_of_two_years(tmp_path: Path, paint: Paint) -> None:
    root = tmp_path / "kit"
    devkit(root, paint, "VOC2007", {"trainval": ["1", "2"], "train": ["1"], "test": ["3"]})
    devkit(root, paint, "VOC2012", {"trainval": ["4"], "test": ["5"]})
    train, test = load(root), load(root, "test")
    assert (names(train), names(test)) == (["1", "2", "4"], ["3"])
    assert train.classes == voc.CLASSES
    assert len(voc.CLASSES) == len(set(voc.CLASSES)) == 20
    assert boxes(train, 0) == [[1, 2, 30, 40]]
    assert train.labels[:, 14].tolist() == [1, 1, 1]
    assert names(load(root / "VOC2007")) == ["1", "2"]


def test_without_a_list_of_test_val_is_held_back(tmp_path: Path, paint: Paint) -> None:
    root = tmp_path / "kit"
    devkit(root, paint, "VOC2012", {"trainval": ["1", "2"], "train": ["1"], "val": ["2"]})
    assert (names(load(root)), names(load(root, "test"))) == (["1"], ["2"])


def test_without_any_a_share_has_to_be_held_back(tmp_path: Path, paint: Paint) -> None:
    root = tmp_path / "kit"
    devkit(root, paint, "VOC2012", {"trainval": ["1", "2"]})
    assert names(load(root)) == ["1", "2"]
    with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
        load(root, "test")


def test_difficult_objects_are_not_known_or_as_published(beside: Path) -> None:
    things = (thing(*CAT), thing("cat", (0, 0, 9, 9), difficult=1), thing(*DOG, difficult=1))
    for name in ("train/b", "test/c"):
        write(beside / f"{name}.xml", *things)
    ours = [load(beside, split) for split in ("train", "test")]
    assert [each.labels[-1].tolist() for each in ours] == [[1, UNLABELLED]] * 2
    assert ours[0].target(1)["difficult"].tolist() == [False, True, True]
    theirs = [load(beside, split, difficult="published") for split in ("train", "test")]
    assert theirs[0].labels[-1].tolist() == [1, 1]
    assert theirs[1].labels[-1].tolist() == [1, UNLABELLED]
    assert [boxes(each, -1 % len(each)) for each in theirs] == [[list(CAT[1])]] * 2


def wanted(root: Path, task: str, **data: Any) -> Recipe:
    student = {"name": "ssdlite", "options": {"size": 64, "extra": [16, 16, 16, 16]}}
    given = {"source": "voc", "root": str(root), "augment": "flip"} | data
    training = {"batch": 2}
    return Recipe.from_dict({"task": task, "data": given, "student": student, "training": training})


def images(asked: Recipe) -> tuple[Source, Source]:
    read = read_images(asked, tasks.find(asked.task))
    assert read.validation is not None
    return read.train, read.validation


def test_what_is_held_back_is_measured_without_difficult_objects(beside: Path) -> None:
    for name in ("train/a", "train/b"):
        write(beside / f"{name}.xml", thing(*CAT), thing(*DOG, difficult=1))
    asked = {"validation": 0.5, "difficult": "published"}
    train, held = images(wanted(beside, "multilabel", **asked))
    assert train.labels.tolist() == [[1, 1]]
    assert held.labels.tolist() == [[1, UNLABELLED]]
    assert {names(x.source)[int(x.index[0])] for x in (train, held)} == {"a", "b"}  # type: ignore[attr-defined]
    held = images(wanted(beside, "detection", **asked))[1]
    assert boxes(held, 0) == [list(CAT[1])]


@pytest.mark.parametrize("decoded", [False, True])
def test_what_is_held_back_is_read_with_the_rest(
    beside: Path, tmp_path: Path, decoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(beside / "train/a.xml", thing(*CAT), thing(*DOG, difficult=1))
    write(beside / "train/b.xml", thing(*DOG, difficult=1))
    keys = {"validation": 0.5, "decoded": str(tmp_path / "decoded") if decoded else ""}
    ignoring, read, splits = load(beside), voc.load, []

    @wraps(read)
    def counted(root: str, split: Any, **options: Any) -> Source:
        splits.append(split)
        return read(root, split, **options)

    monkeypatch.setattr(voc, "load", counted)
    train, held = images(wanted(beside, "multilabel", difficult="published", **keys))
    assert splits == ["train", "test"]
    assert train.skipped == ("1 of 2 images have no object: kept as background",)
    assert isinstance(held, Subset)
    expected = Subset(ignoring, held.index, ignoring.labels[held.index])
    assert held.digest == expected.digest
    assert held.skipped == expected.skipped == ()
    assert torch.equal(held.labels, expected.labels)
    assert torch.equal(held.image(0), expected.image(0))


def test_a_control_sees_images_of_difficult_objects_alone(beside: Path) -> None:
    write(beside / "train/a.xml", thing(*CAT))
    write(beside / "train/b.xml", thing(*CAT, difficult=1))
    write(beside / "test/c.xml", thing(*CAT))
    experiment = build.experiment(wanted(beside, "detection"))
    assert experiment.images.train.labelled.tolist() == [True, False]
    assert sorted(experiment.train.epoch_order(0)[0].tolist()) == [0, 1]


FAULTS: dict[str, tuple[str, list[float] | None]] = {
    "has 1 box partly outside of the image": (thing("cat", (-5, 10, 40, 90)), [0, 10, 40, 70]),
    "has 1 box without area in the image": (thing("cat", (20, 10, 20, 60)), None),
    "has 1 box with corners in the wrong order": (thing("cat", (30, 40, 20, 60)), [20, 40, 30, 60]),
    "has 1 box without": (thing("cat", (90, 10, 99, 60)), None),
    "with a corner that is not a number": (thing("cat", ("inf", 10, 99, 60)), None),
    "that is not a number": (thing("cat", ("", 10, "x", 60)), None),
    "has the class 'kiwi', which training lacks": (thing("kiwi", (1, 2, 30, 40)), None),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_object_is_mended_left_out_or_refused(
    beside: Path, paint: Paint, reason: str
) -> None:
    faulty, mended = FAULTS[reason]
    paint("test/d.png", seed=9)
    write(beside / "test/d.xml", thing(*DOG), faulty)
    repaired = load(beside, "test", faulty="repair")
    assert boxes(repaired, 1) == [list(DOG[1])] + ([mended] if mended else [])
    skipped = load(beside, "test", faulty="skip")
    assert names(skipped) == ["c"]
    for source, end in ((repaired, "repaired"), (skipped, "left out")):
        (said,) = source.skipped
        assert said.startswith("test/d.png has ")
        assert reason in said
        assert said.endswith(f": {end}")
    with pytest.raises(DataError, match=r"faulty for 1 images .* set data\.faulty to repair"):
        load(beside, "test", faulty="fail")


def test_half_a_pixel_is_rounding(beside: Path) -> None:
    write(beside / "train/a.xml", thing("cat", (-0.4, 10, 80.4, 60)))
    source = load(beside, faulty="fail")
    assert boxes(source, 0) == [[0, 10, 80, 60]]


@pytest.mark.parametrize("size", [(0, 0), (10**30, 70)])
def test_no_size_is_the_images_own(beside: Path, size: tuple[int, int]) -> None:
    write(beside / "train/a.xml", thing(*CAT), size=size)
    (beside / "train/b.xml").write_text(f"<annotation>{thing(*DOG)}</annotation>")
    source = load(beside, faulty="fail")
    assert (boxes(source, 0), boxes(source, 1)) == ([list(CAT[1])], [list(DOG[1])])


def test_boxes_follow_an_image_that_was_resized(beside: Path) -> None:
    write(beside / "train/a.xml", thing("cat", (20, 24, 80, 100)), size=(160, 140))
    source = load(beside)
    assert boxes(source, 0) == [[10, 12, 40, 50]]
    assert source.target(0)["areas"].tolist() == [30 * 38]
    assert source.skipped == (
        "train/a.png has boxes for 160 × 140 pixels, but an image of 80 × 70: repaired",
    )


@pytest.mark.parametrize("choice", ["repair", "skip"])
def test_boxes_of_another_shape_cannot_be_placed(beside: Path, choice: str) -> None:
    write(beside / "train/a.xml", thing(*CAT), size=(70, 80))
    source = load(beside, faulty=choice)
    assert names(source) == ["b"]
    assert source.skipped[0].endswith("for 70 × 80 pixels, but an image of 80 × 70: left out")


def broken(root: Path, paint: Paint, kind: str) -> str:
    """Break the folder; what is said of it."""
    if kind == "no xml":
        paint("train/d.png", seed=7)
        return "train/d.png has no annotation d.xml"
    if kind == "no image":
        write(root / "train/d.xml", thing(*CAT))
        return "train/d.xml has no image of this name"
    if kind == "one name":
        paint("train/b.jpg", seed=7)
        return "train/b.png shares b.xml"
    write(root / "train/d.xml", thing(*CAT))
    (root / "train/d.xml").write_text("<annotation><size>")
    paint("train/d.png", seed=7)
    return "train/d.xml cannot be read as XML"


@pytest.mark.parametrize("kind", ["no xml", "no image", "one name", "no end"])
def test_folder_and_files_disagree(beside: Path, paint: Paint, kind: str) -> None:
    reason = broken(beside, paint, kind)
    for choice in ("repair", "skip"):
        source = load(beside, faulty=choice)
        assert names(source) == ["a", "b"]
        assert [said.startswith(reason) for said in source.skipped] == [True]
    with pytest.raises(DataError, match=reason):
        load(beside, faulty="fail")


def test_a_list_that_names_an_image_twice_or_none(tmp_path: Path, paint: Paint) -> None:
    root = tmp_path / "kit"
    devkit(root, paint, "VOC2007", {"train": ["1", "1", "2"]})
    (root / "VOC2007/JPEGImages/2.jpg").unlink()
    source = load(root / "VOC2007")
    assert names(source) == ["1"]
    assert source.skipped == (
        "JPEGImages/1.jpg is listed twice: left out",
        "JPEGImages/2.jpg is listed, but there is no such file: left out",
    )


def test_an_image_without_objects_is_background(beside: Path) -> None:
    write(beside / "train/a.xml")
    source = load(beside, faulty="fail")
    assert source.labels[0].tolist() == [0, 0]
    assert source.target(0)["boxes"].shape == (0, 4)
    assert source.skipped == ("1 of 2 images have no object: kept as background",)


def test_a_damaged_image_is_left_out(beside: Path) -> None:
    (beside / "train/a.png").write_bytes(b"no image")
    source = load(beside)
    assert names(source) == ["b"]
    assert "a.png cannot be read as an image" in source.skipped[0]
    assert boxes(source, 0) == [list(CAT[1]), list(DOG[1])]
    with pytest.raises(DataError, match="1 of 2 files cannot be read"):
        load(beside, unreadable="fail")


def test_nothing_that_can_be_used(beside: Path) -> None:
    for xml in beside.glob("train/*.xml"):
        write(xml, thing(*CAT), size=(20, 99))
    with pytest.raises(DataError, match=r"No image in .* can be used with its annotation, first"):
        load(beside)
    for xml in beside.glob("train/*.xml"):
        write(xml, thing("cat", (30, 40, 30, 60)))
    with pytest.raises(
        DataError, match=r"No image in .* can be used .*, first: .*a\.png has 1 box"
    ):
        load(beside)
    for xml in beside.glob("train/*.xml"):
        write(xml)
    with pytest.raises(DataError, match=r"None of the 2 training images in .* has an object"):
        load(beside)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_of_another_kind(tmp_path: Path, split: str) -> None:
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="none of the folders ImageSets/Main, VOC2007 and train"):
        load(tmp_path, split)


def test_the_digest_changes_with_box_class_and_flag(beside: Path) -> None:
    digests = {load(beside).digest, load(beside).digest}
    assert len(digests) == 1
    others = (
        thing("cat", (10, 12, 40, 51)),
        thing("dog", CAT[1]),
        thing(*CAT, difficult=1),
        thing(*CAT) + thing("cat", (9, 12, 40, 50)),
    )
    for other in others:
        write(beside / "train/a.xml", other)
        source = load(beside)
        digests |= {source.digest, Subset(source, torch.arange(2), source.labels).digest}
    assert len(digests) == 1 + 2 * len(others)
    assert load(beside).images_digest == source.images_digest


def test_boxes_follow_an_image_that_is_kept_smaller(beside: Path, tmp_path: Path) -> None:
    whole = load(beside)
    small = DecodedSource(whole, tmp_path / "store", side=35)
    assert small.image(1).shape == (3, 35, 40)
    assert boxes(small, 1) == [[x / 2 for x in CAT[1]], [x / 2 for x in DOG[1]]]
    assert small.target(1)["areas"].tolist() == [30 * 38 / 4, 40 * 55 / 4]
    assert small.target(1)["boxes"].canvas_size == (35, 40)
    same = DecodedSource(whole, tmp_path / "other")
    assert boxes(same, 1) == boxes(whole, 1)


def test_blood_cells(unpacked: Callable[[str], Path]) -> None:
    root = unpacked("bccd")
    train, test = load(root), load(root, "test")
    assert (len(train), len(test)) == (292, 72)
    assert train.classes == ("Platelets", "RBC", "WBC")
    assert [sum(len(boxes(s, i)) for i in range(len(s))) for s in (train, test)] == [3941, 945]
    assert [said.split()[0] for said in train.skipped] == [
        f"JPEGImages/BloodImage_00{n}.jpg" for n in (338, 343)
    ]
    with pytest.raises(DataError, match="1 box without area"):
        load(root, faulty="fail")
    assert len(load(root, faulty="skip")) == 290


def test_fruits(unpacked: Callable[[str], Path]) -> None:
    train, test = (load(unpacked("fruits"), split, faulty="fail") for split in ("train", "test"))
    assert (len(train), len(test)) == (240, 60)
    assert [sum(len(boxes(s, i)) for i in range(len(s))) for s in (train, test)] == [465, 117]
    assert train.skipped == test.skipped == ()
