"""Forms of the JSON files of a run directory, as far as a run or a report reads them."""

from understudy.config.json_form import Form

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
    "split": str,
    "metrics": (VALUES, None),
    "fidelity": (VALUES, None),
}

EVALUATION: Form = {
    "metrics": VALUES,
    "fidelity": (VALUES, None),
    "per_class?": ([(float, None)], None),
    "teacher?": (TEACHER, None),
    "classes?": [str],
    "seconds?": (float, None),
    "prepare_seconds?": (float, None),
    "teacher_seconds?": (float, None),
    "memory_mb?": (float, None),
    "parameters?": (int, None),
    "train_parameters?": (int, None),
    "layers?": ({str: {str: float}}, None),
    "best?": (_BEST, None),
}
"""Form of `evaluation.json`, as far as a report reads it."""

JUDGED: Form = {
    **EVALUATION,
    "per_class": ([(float, None)], None),
    "teacher": TEACHER,
    "classes": [str],
    "seconds": float,
    "prepare_seconds": float,
    "teacher_seconds": (float, None),
    "memory_mb": (float, None),
    "parameters": int,
    "train_parameters": int,
}
"""The same, of a run of a comparison."""

ENVIRONMENT: Form = {
    "digests?": {str: str},
    "classes?": [str],
    "skipped?": [str],
    "view_size?": (int, [int], None),
    "prepare_seconds?": float,
    "teacher_seconds?": (float, None),
    "threads?": (int, None),
    "splits?": {str: ({"images": int, "origin?": (str, None)}, None)},
    "understudy?": str,
    "torch?": str,
}
"""Form of `environment.json`, as far as a report reads it."""

BEGUN: Form = {**ENVIRONMENT, "digests": {str: str}, "prepare_seconds": float}
"""The same, of a run that goes on or is compared."""

OUTCOMES: Form = {
    "metric": str,
    "images": int,
    "correct": (str, None),
    "resampled": ([(float, None)], None),
}
"""Form of `outcomes.json`."""

_HISTOGRAM: Form = ({"low": float, "high": float, "mean": float, "counts": [int]}, None)
_FEATURES: Form = {
    "norm": _HISTOGRAM,
    "zeros": (float, None),
    "between_classes": (float, None),
    "to_class_mean": _HISTOGRAM,
    "to_teacher?": _HISTOGRAM,
}

_SCENE: Form = {
    "index?": int,
    "height": int,
    "width": int,
    "picture": str,
    "truth": [object],
    "student": [object],
    "teacher": ([object], None),
}
_PRECISION: Form = {
    "class": int,
    "count": int,
    "student?": [(float, None)],
    "teacher?": [(float, None)],
}
_PROJECTOR: Form = {
    "method": str,
    "feature": str,
    "cka": [(float, None)],
    "cosine": [(float, None)],
    "zeros?": [(float, None)],
}
_TEMPLATES: Form = {
    "method": str,
    "images": [str],
    "places": {str: {"student": [object], "teacher": ([object], None), "agreement": (float, None)}},
}

DIAGNOSTICS: Form = {
    "images?": int,
    "confusion?": [[int]],
    "scenes?": [_SCENE],
    "precision?": [_PRECISION],
    "student?": (_FEATURES, None),
    "teacher?": (_FEATURES, None),
    "bits?": ({"angle": [float], "agreement": [float], "images": [int]}, None),
    "projectors?": [_PROJECTOR],
    "templates?": (_TEMPLATES, None),
}
"""Form of `diagnostics.json`."""
