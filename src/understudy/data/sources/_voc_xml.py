"""Read one XML file of VOC's format, in any encoding and as labelling programs write it."""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from understudy.data.sources._annotations import AnnotatedObject
from understudy.data.sources._values import flag, number, numbers

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\x00": "utf-16-le",
    b"\x00<": "utf-16-be",
}
"""First bytes → codec: byte order marks, those of 32 bits first since they begin like those of 16,
and the first character of UTF-16 without one."""
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""Encodings → what is written under their names, as browsers read them."""


class NotAnAnnotation(ValueError):
    """A file that cannot be read as an annotation; the message is the reason."""


class ImageAnnotation(NamedTuple):
    """Content of one XML file; `sides`, height and width, are 0 where it does not state them."""

    image: Path
    sides: tuple[int, int]
    objects: Sequence[AnnotatedObject]
    faults: Sequence[str]
    """What is wrong without making an object useless."""


def read(image: Path, xml: Path) -> ImageAnnotation:
    """Read the annotation of an image.

    Raises:
        NotAnAnnotation: The file is no XML, not in the encoding that it declares, or XML of
            another format.
        OSError: The file cannot be read.
    """
    try:
        root = ElementTree.fromstring(_text(xml.read_bytes()).lstrip())
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        if isinstance(error, NotAnAnnotation):
            raise
        raise NotAnAnnotation(f"cannot be read as XML ({error})") from error
    for element in root.iter():
        # Without namespace and case, in which programs differ.
        element.tag = str(element.tag).rpartition("}")[2].lower()
    if root.tag != "annotation":
        raise NotAnAnnotation(
            f"is not in VOC's format: its outermost element is <{root.tag}>, not <annotation>"
        )
    height, width = (number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    sides = (0, 0) if height + width != height + width else (int(height), int(width))
    elements = [each for each in root.iter("object") if each is not root]
    unclear = [text for each in elements if flag(text := each.findtext("difficult")) is None]
    faults = [f"has an object whose <difficult> is {text!r}, taken as 0" for text in unclear]
    return ImageAnnotation(image, sides, [_object(each) for each in elements], faults)


def _text(content: bytes) -> str:
    """Decode the bytes of an XML file as their byte order mark or their declaration says.

    The parser itself knows only UTF-8, UTF-16 and encodings of one byte.
    """
    codec = next((codec for mark, codec in _MARKS.items() if content.startswith(mark)), "")
    declared = _DECLARED.match(content)
    if not codec:
        codec = declared[1].decode("ascii") if declared else "utf-8"
    try:
        codec = codec if codec == "utf-8-sig" else codecs.lookup(codec).name
        return content.decode(_WIDER.get(codec, codec))
    except LookupError as error:
        raise NotAnAnnotation(
            f"declares the encoding {codec!r}, which is not known: save it in UTF-8"
        ) from error
    except UnicodeError as error:
        says = "which it declares" if declared else "as XML is that declares no other encoding"
        raise NotAnAnnotation(
            f"is not in {codec}, {says} (byte {getattr(error, 'start', 0)}): save it in UTF-8"
        ) from error


def _object(element: ElementTree.Element) -> AnnotatedObject:
    name = " ".join((element.findtext("name") or "").split())
    boxes = element.findall("bndbox")
    corners = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    box, unreadable = numbers(corners)
    if not name:
        fault = "object without a name"
    elif not boxes:
        others = [tag for tag in ("robndbox", "polygon") if element.find(tag) is not None]
        fault = "object without a box" + (f" (it has <{others[0]}>)" if others else "")
    elif len(boxes) > 1:
        fault = "object with several boxes"
    else:
        fault = unreadable
    return AnnotatedObject(
        name=name,
        box=tuple(box),
        difficult=bool(flag(element.findtext("difficult"))),
        fault=fault,
    )
