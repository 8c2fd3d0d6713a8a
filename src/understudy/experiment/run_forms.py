"""Forms of the JSON files of a run directory, as far as a run or a report reads them.

Lists that belong together have equal lengths: a report of a file that was cut would else end in an
error of its own, or join numbers that do not belong together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.config.json_form import Form, Such

VALUES: Form = {str: (float, None)}
"""Form of metrics and of fidelity: name → value; null where it cannot be computed."""

EPOCH: Form = {
    "epoch": int,
    "seconds?": float,
    "losses?": VALUES,
    "metrics?": (VALUES, None),
    "fidelity?": (VALUES, None),
    "step?": int,
    "lr?": (float, None),
    "images_per_second?": (float, None),
    "teacher_seconds?": (float, None),
    "split?": str,
    "best?": bool,
    "final_metrics?": (VALUES, None),
    "final_fidelity?": (VALUES, None),
}
"""Form of a line of `metrics.jsonl`, as far as a report reads it."""

TRAINED: Form = [{**EPOCH, "seconds": float, "metrics": (VALUES, None)}]
"""Form of all lines, of a run that goes on or is compared."""

TEACHER: Form = {
    "name": str,
    "metrics": VALUES,
    "per_class?": ([(float, None)], None),
    "parameters?": (int, None),
    "seconds?": (float, None),
}
"""Form of what is known of a teacher."""

_BEST: Form = {
    "epoch": int,
    "chosen_on": str,
    "chosen_by?": str,
    "split": str,
    "metrics": (VALUES, None),
    "fidelity": (VALUES, None),
}

_COST: Form = {"parameters": float, "macs": float, "image_ms": float}


def _cost_fault(cost: Mapping[str, float]) -> str:
    return "" if all(cost[key] > 0 for key in _COST) else "a cost of nothing"


def _classes_fault(content: Mapping[str, Any]) -> str:
    """Return what is wrong with the accuracies of classes whose names are known."""
    names = content.get("classes") or ()
    for network in (content, content.get("teacher") or {}):
        known = network.get("per_class") or ()
        if known and names and len(known) != len(names):
            return f"{len(known)} values of classes (per_class) for {len(names)} names (classes)"
    return ""


_EVALUATION: dict[str, Form] = {
    "metrics": VALUES,
    "fidelity": (VALUES, None),
    "per_class?": ([(float, None)], None),
    "teacher?": (TEACHER, None),
    "teachers?": {str: TEACHER},
    "classes?": [str],
    "seconds?": (float, None),
    "prepare_seconds?": (float, None),
    "teacher_seconds?": (float, None),
    "memory_mb?": (float, None),
    "parameters?": (int, None),
    "train_parameters?": (int, None),
    "layers?": ({"student": _COST, "plain": Such(_COST, _cost_fault)}, None),
    "best?": (_BEST, None),
}

EVALUATION: Form = Such(_EVALUATION, _classes_fault)
"""Form of `evaluation.json`, as far as a report reads it."""

_JUDGED: dict[str, Form] = {
    **_EVALUATION,
    "per_class": ([(float, None)], None),
    "teacher": (TEACHER, None),
    "classes": [str],
    "seconds": float,
    "prepare_seconds": float,
    "teacher_seconds": (float, None),
    "memory_mb": (float, None),
    "parameters": int,
    "train_parameters": int,
}

JUDGED: Form = Such(_JUDGED, _classes_fault)
"""The same, of a run of a comparison."""

ENVIRONMENT: Form = {
    "digests?": {str: str},
    "classes?": [str],
    "skipped?": [str],
    "view_size?": (int, [int], None),
    "reasons?": {str: str},
    "extended?": [{"from": int, "by": int}],
    "prepare_seconds?": float,
    "teacher_seconds?": (float, None),
    "threads?": (int, None),
    "channels_last?": (bool, None),
    "splits?": {str: ({"images": int, "origin?": (str, None)}, None)},
    "understudy?": str,
    "torch?": str,
}
"""Form of `environment.json`, as far as a report reads it."""

BEGUN: Form = {**ENVIRONMENT, "digests": {str: str}, "prepare_seconds": float}
"""The same, of a run that goes on or is compared."""


def _outcomes_fault(content: Mapping[str, Any]) -> str:
    correct, images = content["correct"], content["images"]
    if not correct:
        return "" if content["resampled"] else "neither correct nor resampled values"
    if set(correct) - {"0", "1"} or len(correct) != images:
        return f"{len(correct)} outcomes (correct) of {images} images, or others than 0 and 1"
    return ""


OUTCOMES: Form = Such(
    {"metric": str, "images": int, "correct": (str, None), "resampled": ([float], None)},
    _outcomes_fault,
)
"""Form of `outcomes.json`."""


def _counts_fault(counts: Sequence[int]) -> str:
    return "" if sum(counts) > 0 and min(counts) >= 0 else "counts without an image, or below 0"


def _histogram_fault(content: Mapping[str, Any]) -> str:
    if content["low"] >= content["high"]:
        return "a low end that is not below the high one"
    return _counts_fault(content["counts"])


def _bits_fault(content: Mapping[str, Any]) -> str:
    counts = [len(content[key]) for key in ("angle", "agreement", "images")]
    if len(set(counts)) > 1:
        return "angle, agreement and images of {}, {} and {} bins".format(*counts)
    return _counts_fault(content["images"])


def _square_fault(table: Sequence[Sequence[int]]) -> str:
    wrong = any(len(row) != len(table) or min(row) < 0 for row in table)
    return "a table of classes that is not square, or counts below 0" if wrong else ""


def _scene_fault(scene: Mapping[str, Any]) -> str:
    """Return what is wrong with a sample image: boxes have six numbers, classes of images one."""
    truth, boxes = scene["truth"], bool(scene["truth"]) and isinstance(scene["truth"][0], list)
    answers = [*(truth if boxes else ()), *scene["student"], *(scene["teacher"] or ())]
    if not truth or min(scene["height"], scene["width"]) < 1:
        return "no truth, or no pixels"
    if not boxes and not all(isinstance(c, int) and c >= 0 for c in truth):
        return "a class that is no number from 0 on"
    count, place = (6, 4) if boxes else (2, 0)
    if not all(_are_numbers(row, count) and row[place] >= 0 for row in answers):
        return f"an answer that is not {count} numbers"
    return ""


def _are_numbers(row: Any, count: int) -> bool:
    numbers = isinstance(row, list) and all(type(x) in (int, float) for x in row)
    return numbers and len(row) == count


def _pair_fault(pair: Sequence[Any]) -> str:
    return "" if len(pair) == 2 else f"{len(pair)} values instead of one before and one behind"


def _classes_of_curves_fault(curves: Sequence[Mapping[str, Any]]) -> str:
    classes = [curve["class"] for curve in curves]
    if len(set(classes)) < len(classes) or min(classes, default=0) < 0:
        return "a class twice, or one below 0"
    if len({"teacher" in curve for curve in curves}) > 1:
        return "curves of the teacher for some classes alone"
    return ""


def _templates_fault(content: Mapping[str, Any]) -> str:
    images = len(content["images"])
    for name, layer in content["places"].items():
        if layer["teacher"] is not None and layer["agreement"] is None:
            return f"no agreement of {name}"
        grids = [layer["student"], layer["teacher"] or layer["student"]]
        sides = {(len(grid), *map(len, grid)) for side in grids for grid in side}
        if any(len(side) != images for side in grids) or len(sides) > 1 or 0 in min(sides):
            return f"grids of {name} that do not match each other, or {images} images"
    return ""


def _bins_fault(content: Mapping[str, Any]) -> str:
    """Return what is wrong with the histograms, which all have as many bins."""
    networks = [content.get(name) or {} for name in ("student", "teacher")]
    drawn = [x["counts"] for one in networks for x in one.values() if isinstance(x, dict)]
    return "histograms of different numbers of bins" if len(set(map(len, drawn))) > 1 else ""


_HISTOGRAM: Form = (
    Such({"low": float, "high": float, "mean": float, "counts": [int]}, _histogram_fault),
    None,
)
_FEATURES: Form = {
    "norm": _HISTOGRAM,
    "zeros": (float, None),
    "between_classes": (float, None),
    "to_class_mean": _HISTOGRAM,
    "to_teacher?": _HISTOGRAM,
}

_SCENE: Form = Such(
    {
        "index?": int,
        "height": int,
        "width": int,
        "picture": str,
        "truth": [object],
        "student": [object],
        "teacher": ([object], None),
    },
    _scene_fault,
)
_CURVE: Form = {"class": int, "count": int, "student": [float], "teacher?": [float]}
_PAIR: Form = Such([(float, None)], _pair_fault)
_PROJECTOR: Form = {
    "method": str,
    "feature": str,
    "cka": _PAIR,
    "cosine": _PAIR,
    "zeros": Such([float], _pair_fault),
}
_LAYER: Form = {
    "student": [[[int]]],
    "teacher": ([[[int]]], None),
    "agreement": (float, None),
}
_TEMPLATES: Form = Such({"method": str, "images": [str], "places": {str: _LAYER}}, _templates_fault)
_BITS: Form = Such({"angle": [float], "agreement": [float], "images": [int]}, _bits_fault)

_BESIDE_TEACHER: Form = {
    "images?": int,
    "student?": (_FEATURES, None),
    "teacher?": (_FEATURES, None),
    "bits?": (_BITS, None),
    "projectors?": [_PROJECTOR],
    "templates?": (_TEMPLATES, None),
}

DIAGNOSTICS: Form = Such(
    {
        **_BESIDE_TEACHER,
        "confusion?": Such([[int]], _square_fault),
        "scenes?": [_SCENE],
        "precision?": Such([_CURVE], _classes_of_curves_fault),
        "teachers?": {str: Such(_BESIDE_TEACHER, _bins_fault)},
    },
    _bins_fault,
)
"""Form of `diagnostics.json`."""
