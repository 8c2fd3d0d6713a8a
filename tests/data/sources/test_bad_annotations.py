"""Kinds of bad annotations in all formats with boxes: what is read, and the sentence of the rest.

Every case has a training split of three images: `a_good`, with one cat, `b_pair`, with a cat and
the bad object, and `c_bad`, with the bad object alone. Pictures are 80 × 70 pixels.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from understudy.batch import UNLABELLED
from understudy.data import Source
from understudy.data.sources import coco, voc, yolo
from understudy.errors import DataError

Paint = Callable[..., Path]
CAT = [10.0, 12.0, 40.0, 50.0]
NAMES = ("a_good", "b_pair", "c_bad")


def xml_of(*objects: str, size: tuple[int, int] = (80, 70)) -> str:
    width, height = size
    stated = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{stated}{''.join(objects)}</annotation>"


def thing(*corners: Any, name: str = "<name>cat</name>", more: str = "") -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(f"<{t}>{c}</{t}>" for t, c in zip(tags, corners, strict=True))
    return f"<object>{name}{more}<bndbox>{inside}</bndbox></object>"


GOOD = thing(10, 12, 40, 50)


def voc_with(root: Path, paint: Paint, bad: str) -> Source:
    for name, objects in zip(NAMES, ([GOOD], [GOOD, bad], [bad]), strict=True):
        paint(f"train/{name}.png")
        (root / f"train/{name}.xml").write_text(xml_of(*objects))
    return voc.load(str(root), "train")


def coco_with(root: Path, paint: Paint, **bad: Any) -> Source:
    good = {"category_id": 1, "bbox": [10, 12, 30, 38]}
    bad = good | bad
    rows = [(0, good), (1, good), (1, bad), (2, bad)]
    write_coco(root, paint, [{"image_id": i} | each for i, each in rows])
    return coco.load(str(root), "train")


def write_coco(root: Path, paint: Paint, annotations: list[dict[str, Any]], **more: Any) -> None:
    for name in NAMES:
        paint(f"train/{name}.png")
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations}
    content |= {"categories": [{"id": 1, "name": "cat"}]} | more
    (root / "train/_annotations.coco.json").write_text(json.dumps(content))


def boxes(source: Source, i: int) -> list[list[float]]:
    return source.target(i)["boxes"].tolist()  # type: ignore[no-any-return]


MOVED = [20.0, 12.0, 60.0, 50.0]
"""A second cat."""
READ: dict[str, str] = {
    "reversed corners": thing(60, 50, 20, 12),
    "one reversed side": thing(60, 12, 20, 50),
    "decimal commas": thing("20,0", "12,00", "6,0e1", "50"),
    "spaces and lines": thing(" 20\n", 12, 60, "\t50 "),
    "capital letters": thing(20, 12, 60, 50).replace("object", "Object").replace("xmin", "XMin"),
    "difficult in words": thing(20, 12, 60, 50, more="<difficult>no</difficult>"),
    "difficult is missing": thing(20, 12, 60, 50, more="<difficult/>"),
}


@pytest.mark.parametrize("kind", READ)
def test_other_spellings_are_read(kind: str, tmp_path: Path, paint: Paint) -> None:
    source = voc_with(tmp_path, paint, READ[kind])
    assert (boxes(source, 1), boxes(source, 2)) == ([CAT, MOVED], [MOVED])
    expected = "box with corners in the wrong order" if "reversed" in kind else ""
    assert [expected in line for line in source.skipped] == [True] * (2 if expected else 0)


DROPPED: dict[str, tuple[str, str]] = {
    "no name": (thing(1, 2, 30, 40, name=""), "1 object without a name"),
    "empty name": (thing(1, 2, 30, 40, name="<name> </name>"), "1 object without a name"),
    "no box": ("<object><name>cat</name></object>", "1 object without a box"),
    "a rotated box": (
        "<object><name>cat</name><robndbox><cx>3</cx></robndbox></object>",
        "1 object without a box (it has <robndbox>)",
    ),
    "two boxes": (
        thing(1, 2, 30, 40).replace("</object>", "<bndbox></bndbox></object>"),
        "1 object with several boxes",
    ),
    "no corner": (thing(1, 2, "", 40), "1 box with a corner that is not a number ('')"),
    "words": (thing(1, 2, "30px", 40), "1 box with a corner that is not a number ('30px')"),
    "not finite": (thing(1, 2, "nan", 40), "1 box with a corner that is not a number ('nan')"),
    "underscores": (thing(1, 2, "3_0", 40), "1 box with a corner that is not a number ('3_0')"),
    "thousands": (thing(1, 2, "1,200", 40), "'1,200', which could be thousands or a fraction"),
    "a line": (thing(1, 2, 1, 40), "1 box without area in the image"),
    "nothing": (thing(0, 0, 0, 0), "1 box without area in the image"),
    "shares": (thing(0.1, 0.2, 0.6, 1), "1 box in shares of the image's sides instead of pixels"),
    "outside": (thing(90, 2, 99, 40), "1 box without area in the image"),
}


@pytest.mark.parametrize("kind", DROPPED)
def test_a_dropped_object_never_makes_its_image_background(
    kind: str, tmp_path: Path, paint: Paint
) -> None:
    bad, reason = DROPPED[kind]
    source = voc_with(tmp_path, paint, bad)
    assert source.classes == ("cat",)
    assert len(source) == 2
    assert (boxes(source, 0), boxes(source, 1)) == ([CAT], [CAT])
    beside, alone = sorted(source.skipped)
    assert alone == f"train/c_bad.png has {_phrase(alone, reason)} and has no other box: left out"
    assert beside == f"train/b_pair.png has {_phrase(beside, reason)}: repaired"
    assert len(voc.load(str(tmp_path), "train", faulty="skip")) == 1
    with pytest.raises(DataError, match=r"faulty for 2 images .* set data\.faulty"):
        voc.load(str(tmp_path), "train", faulty="fail")


def _phrase(line: str, reason: str) -> str:
    """The reason, in the phrase that the line has it in."""
    assert reason in line
    return reason if f"has {reason}" in line else f"1 box with the corner {reason}"


def test_a_class_whose_objects_were_dropped_is_not_known(tmp_path: Path, paint: Paint) -> None:
    bad = thing(1, 2, 1, 40, name="<name>dog</name>") + thing(1, 2, "", 4, name="<name>cow</name>")
    source = voc_with(tmp_path, paint, bad)
    assert source.classes == ("cat", "cow", "dog")
    assert source.labels.tolist() == [[1, 0, 0], [1, UNLABELLED, UNLABELLED]]
    (tmp_path / "train/b_pair.xml").write_text(xml_of(GOOD, bad, thing(1, 2, 30, 40), GOOD))
    assert voc.load(str(tmp_path), "train").labels.tolist()[1] == [1, UNLABELLED, UNLABELLED]
    (tmp_path / "train/b_pair.xml").write_text(xml_of(GOOD, thing(1, 2, 30, 40, name="")))
    (tmp_path / "train/c_bad.xml").write_text(xml_of(thing(1, 2, 9, 9, name="<name>dog</name>")))
    source = voc.load(str(tmp_path), "train")
    assert source.labels.tolist() == [[1, 0], [1, UNLABELLED], [0, 1]]


COCO_DROPPED: dict[str, tuple[dict[str, Any], str]] = {
    "no bbox": ({"bbox": None}, "1 object without a box"),
    "an empty bbox": ({"bbox": []}, "1 object without a box"),
    "three numbers": ({"bbox": [1, 2, 3]}, "1 box that is not a list of 4 numbers"),
    "an object": ({"bbox": {"x": 1}}, "1 box that is not a list of 4 numbers"),
    "shares": ({"bbox": [0.1, 0.2, 0.5, 0.5]}, "1 box in shares of the image's sides instead"),
    "a boolean": ({"bbox": [True, 2, 3, 4]}, "a corner that is not a number (True)"),
    "a huge number": ({"bbox": [1, 2, 10**400, 4]}, "a corner that is not a number (1000"),
    "an unknown class": ({"category_id": 9}, "has the class 'id 9', which training lacks"),
}


@pytest.mark.parametrize("kind", COCO_DROPPED)
def test_dropped_objects_of_json(kind: str, tmp_path: Path, paint: Paint) -> None:
    bad, reason = COCO_DROPPED[kind]
    source = coco_with(tmp_path, paint, **bad)
    assert (boxes(source, 0), boxes(source, 1), len(source)) == ([CAT], [CAT], 2)
    assert [reason in line for line in source.skipped] == [True, True]
    assert source.skipped[1].endswith("has no other box: left out")


@pytest.mark.parametrize("bbox", [["20", "12", "40", "38"], ["20,0", 12, 40.0, "38,0"]])
def test_numbers_as_text_in_json(bbox: list[Any], tmp_path: Path, paint: Paint) -> None:
    source = coco_with(tmp_path, paint, bbox=bbox)
    assert (boxes(source, 2), source.skipped) == ([MOVED], ())
    source = coco_with(tmp_path, paint, bbox=[60, 50, -40, -38])
    assert boxes(source, 2) == [MOVED]
    assert "train/c_bad.png has 1 box with corners in the wrong order: repaired" in source.skipped


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("Yes", True), ("1", True), ("1.0", True), ("false", False), ("0", False)],
)
def test_flags_in_words(word: str, value: bool, tmp_path: Path, paint: Paint) -> None:
    source = voc_with(tmp_path, paint, thing(20, 12, 60, 50, more=f"<difficult>{word}</difficult>"))
    assert source.target(2)["difficult"].tolist() == [value]
    source = coco_with(tmp_path, paint, bbox=[20, 12, 40, 38], iscrowd=word)
    assert source.target(2)["crowd"].tolist() == [value]


def test_a_flag_that_is_no_flag_is_said(tmp_path: Path, paint: Paint) -> None:
    source = voc_with(tmp_path, paint, thing(20, 12, 60, 50, more="<difficult>maybe</difficult>"))
    assert source.skipped[-1] == (
        "train/c_bad.png has an object whose <difficult> is 'maybe', taken as 0: repaired"
    )
    source = coco_with(tmp_path, paint, bbox=[20, 12, 40, 38], iscrowd="maybe")
    assert "train/c_bad.png has an object whose iscrowd is 'maybe', taken as 0: repaired" in str(
        source.skipped
    )


@pytest.mark.parametrize("source_of", [voc_with, coco_with])
def test_an_object_that_is_there_twice(source_of: Any, tmp_path: Path, paint: Paint) -> None:
    source = (
        source_of(tmp_path, paint, GOOD) if source_of is voc_with else coco_with(tmp_path, paint)
    )
    assert (boxes(source, 1), boxes(source, 2)) == ([CAT], [CAT])
    assert source.skipped == ("train/b_pair.png has 1 box listed twice: repaired",)


def test_of_two_equal_objects_the_one_that_is_not_difficult_is_kept(
    tmp_path: Path, paint: Paint
) -> None:
    difficult = GOOD.replace("<bndbox>", "<difficult>1</difficult><bndbox>")
    voc_with(tmp_path, paint, difficult)
    (tmp_path / "train/b_pair.xml").write_text(xml_of(difficult, GOOD, GOOD))
    source = voc.load(str(tmp_path), "train")
    assert source.target(1)["difficult"].tolist() == [False]
    assert source.skipped == ("train/b_pair.png has 2 boxes listed twice: repaired",)


def test_two_entries_of_one_image(tmp_path: Path, paint: Paint) -> None:
    good = {"category_id": 1, "bbox": [10, 12, 30, 38]}
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(NAMES)]
    images += [{"id": 3, "file_name": "a_good.png"}, {"id": 4, "file_name": "b_pair.png"}]
    rows = [(0, good), (1, good), (3, good), (4, good | {"bbox": [1, 2, 3, 4]}), (2, good)]
    write_coco(tmp_path, paint, [{"image_id": i} | each for i, each in rows], images=images)
    source = coco.load(str(tmp_path), "train")
    assert (len(source), boxes(source, 0)) == (2, [CAT])
    assert source.skipped == (
        "train/a_good.png is listed twice: left out",
        "train/b_pair.png has two annotations that differ: left out",
    )


def test_two_images_of_one_id(tmp_path: Path, paint: Paint) -> None:
    good = {"category_id": 1, "bbox": [10, 12, 30, 38]}
    images = [{"id": i % 2, "file_name": f"{name}.png"} for i, name in enumerate(NAMES)]
    write_coco(tmp_path, paint, [good | {"image_id": i} for i in range(2)], images=images)
    source = coco.load(str(tmp_path), "train")
    assert len(source) == 1
    assert source.skipped == (
        "train/a_good.png has the id of another image, 0: left out",
        "train/c_bad.png has the id of another image, 0: left out",
    )


def test_two_files_for_one_image(tmp_path: Path, paint: Paint) -> None:
    voc_with(tmp_path, paint, thing(20, 12, 60, 50))
    (tmp_path / "train/annotations").mkdir()
    (tmp_path / "train/annotations/c_bad.xml").write_text(xml_of(GOOD))
    (tmp_path / "train/a_good.XML").write_text(xml_of(GOOD))
    source = voc.load(str(tmp_path), "train")
    assert len(source) == 2
    assert source.skipped == (
        "train/a_good.png is listed twice: left out",
        "train/c_bad.png has two annotations that differ: left out",
    )


@pytest.mark.parametrize("ids", [("1", 1), (1, "01"), (1.0, 1), ("1.0", 1.0)])
def test_ids_as_text_or_fractions(ids: tuple[Any, Any], tmp_path: Path, paint: Paint) -> None:
    category, used = ids
    rows = [{"image_id": i, "category_id": used, "bbox": [10, 12, 30, 38]} for i in (0, "1", 2.0)]
    write_coco(tmp_path, paint, rows, categories=[{"id": category, "name": "cat"}])
    source = coco.load(str(tmp_path), "train", faulty="fail")
    assert [boxes(source, i) for i in range(3)] == [[CAT]] * 3


@pytest.mark.parametrize("name", ["my-project", "cat"])
def test_the_project_is_no_class(name: str, tmp_path: Path, paint: Paint) -> None:
    categories = [
        {"id": 0, "name": name, "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": name},
        {"id": 2, "name": "dog", "supercategory": name},
    ]
    rows = [{"image_id": i, "category_id": 1, "bbox": [10, 12, 30, 38]} for i in range(3)]
    write_coco(tmp_path, paint, rows, categories=categories)
    assert coco.load(str(tmp_path), "train", faulty="fail").classes == ("cat", "dog")
    if name != "cat":
        rows[0]["category_id"] = 0
        write_coco(tmp_path, paint, rows, categories=categories)
        assert coco.load(str(tmp_path), "train").classes == (name, "cat", "dog")


CHINESE = "<?xml version='1.0' encoding='{}'?>" + xml_of(GOOD.replace("cat", "猫"))


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        *(
            ("gb2312", "gb2312"),
            ("GB2312", "gb18030"),
            ("Shift_JIS", "cp932"),
            ("EUC-JP", "euc_jp"),
        ),
        *(
            ("utf-16", "utf-16"),
            ("utf-16", "utf-16-le"),
            ("utf-8", "utf-8-sig"),
            ("utf-8", "utf-8"),
        ),
    ],
)
def test_files_in_their_declared_encoding(
    declared: str, codec: str, tmp_path: Path, paint: Paint
) -> None:
    paint("train/a.png")
    (tmp_path / "train/a.xml").write_bytes(CHINESE.format(declared).encode(codec))
    source = voc.load(str(tmp_path), "train", faulty="fail")
    assert (source.classes, boxes(source, 0)) == (("猫",), [CAT])


NO_XML: dict[bytes, str] = {
    CHINESE.format("no-such").encode(): "declares the encoding 'no-such', which is not known: save",
    CHINESE.format("hex").encode(): "declares the encoding 'hex', which is not known: save it in",
    CHINESE.format("ascii").encode(): "is not in ascii, which it declares",
    xml_of(GOOD.replace("cat", "熊猫")).encode(
        "gb2312"
    ): "is not in utf-8, as XML is that declares",
    b"<annotation><object>": "cannot be read as XML",
    b"": "cannot be read as XML",
    b"<annotations><image/></annotations>": "its outermost element is <annotations>, not <annota",
    b'{"shapes": []}': "cannot be read as XML",
}


@pytest.mark.parametrize("content", NO_XML)
def test_files_that_are_no_annotation(content: bytes, tmp_path: Path, paint: Paint) -> None:
    voc_with(tmp_path, paint, GOOD)
    (tmp_path / "train/c_bad.xml").write_bytes(content)
    source = voc.load(str(tmp_path), "train")
    assert len(source) == 2
    assert source.skipped[0].startswith("train/c_bad.xml ")
    assert NO_XML[content] in source.skipped[0]
    with pytest.raises(DataError, match=r"faulty for 2 images or files, first: train/c_bad\.xml"):
        voc.load(str(tmp_path), "train", faulty="fail")


def test_a_namespace_is_left_aside(tmp_path: Path, paint: Paint) -> None:
    voc_with(tmp_path, paint, GOOD)
    content = xml_of(GOOD).replace("<annotation>", "<annotation xmlns='http://example.org/voc'>", 1)
    (tmp_path / "train/c_bad.xml").write_text(content)
    assert boxes(voc.load(str(tmp_path), "train"), 2) == [CAT]


@pytest.mark.parametrize("stated", [(70, 80), (0, 0)])
def test_boxes_drawn_before_the_rotation_of_exif(
    stated: tuple[int, int], tmp_path: Path, paint: Paint
) -> None:
    voc_with(tmp_path, paint, GOOD)
    image = Image.open(tmp_path / "train/c_bad.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train/c_bad.png").unlink()
    image.save(tmp_path / "train/c_bad.jpg", exif=exif)
    (tmp_path / "train/c_bad.xml").write_text(xml_of(thing(10, 12, 40, 78), size=stated))
    source = voc.load(str(tmp_path), "train")
    assert len(source) == 2
    said = next(line for line in source.skipped if "c_bad.jpg" in line)
    assert "before the rotation that its EXIF asks for (turn the boxes, or remove the" in said
    assert said.endswith("left out")


def test_no_two_sources_differ_in_what_they_drop(tmp_path: Path, paint: Paint) -> None:
    """The same bad boxes in three formats: what remains is the same."""
    corners = [
        (10, 12, 40, 50),
        (60, 50, 20, 12),
        (-5, 10, 40, 99),
        (5, 5, 5, 60),
        (10, 12, 40, 50),
    ]
    for name in ("voc", "coco", "yolo"):
        paint(f"{name}/train/a.png")
    (tmp_path / "voc/train/a.xml").write_text(xml_of(*(thing(*each) for each in corners)))
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [a, b, c - a, d - b]} for a, b, c, d in corners
    ]
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows}
    content["categories"] = [{"id": 1, "name": "cat"}]
    (tmp_path / "coco/train.json").write_text(json.dumps(content))
    lines = [
        f"0 {(a + c) / 160} {(b + d) / 140} {(c - a) / 80} {(d - b) / 70}" for a, b, c, d in corners
    ]
    (tmp_path / "yolo/train/a.txt").write_text("\n".join(lines))
    (tmp_path / "yolo/data.yaml").write_text("train: train\nnames: [cat]\n")
    sources = [
        module.load(str(tmp_path / name), "train")
        for name, module in (("voc", voc), ("coco", coco), ("yolo", yolo))
    ]
    expected = torch.tensor([[10.0, 12, 40, 50], [20, 12, 60, 50], [0, 10, 40, 70]])
    for source in sources:
        assert torch.allclose(source.target(0)["boxes"].as_subclass(torch.Tensor), expected)
        assert source.skipped == (
            "train/a.png has 1 box with corners in the wrong order and has 1 box without area in "
            "the image and has 1 box partly outside of the image and has 1 box listed "
            "twice: repaired",
        )
