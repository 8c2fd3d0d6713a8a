"""What a method needs, in a few words: features of the teacher, and what it cannot be used for."""

from functools import cache
from typing import Any

PAIR = ("resnet8x4", "resnet32x4")
"""Student and teacher on which it is found what a method reads."""

OTHERS = {
    "deit": "scores, second head",
    "frs": "detector",
    "letkd": "maps, scores",
}
"""Method that refuses this pair → what it reads."""

_IN_FULL = {
    "scores": "its class scores (logits)",
    "vector": "the vector before its classifier",
    "maps": "the maps of its stages",
    "map": "the map of a stage",
    "detector": "maps and scores of a detector",
}

_REFUSED = {
    "requires_softmax": "multilabel",
    "requires_hard_labels": "mixup",
    "requires_image_index": "detection",
}
"""Attribute of a method → what it is refused for."""


def reads(method: Any) -> str:
    """Return what a method reads of the teacher: class scores, a vector, a map or several.

    Scores that only labels need, as in the selective form of lshfm, do not count: without labels
    the method works for a teacher that has none.
    """
    name = method.__module__.rpartition(".")[2]
    if name in OTHERS:
        return OTHERS[name]
    student, teacher = map(_shapes, PAIR)
    features = method(student, teacher, **_without_labels(method)).reads
    maps = [x for x in features if x.startswith("st") or x == "penultimate/map"]
    parts = {
        "scores": "logits" in features,
        "vector": "penultimate" in features,
        "maps": len(maps) > 1,
        "map": len(maps) == 1,
    }
    return ", ".join(words for words, has in parts.items() if has)


def _without_labels(method: Any) -> dict[str, Any]:
    """Return the defaults of a method where images have no labels."""
    return {key: x for key, x in method.published.get("none", {}).items() if key != "weight"}


def in_full(needs: str) -> str:
    """Return what `reads` returned in more words."""
    return ", ".join(_IN_FULL.get(each, each) for each in needs.split(", "))


def not_for(method: Any) -> str:
    """Return what a method is refused for; empty if nothing."""
    return ", ".join(words for key, words in _REFUSED.items() if getattr(method, key))


@cache
def _shapes(name: str) -> Any:
    from understudy import models

    return models.find(name, num_classes=100).shapes
