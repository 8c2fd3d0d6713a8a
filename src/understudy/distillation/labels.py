"""Labels of methods: names of losses, of modules and of folders at once."""

import re
from typing import Any

from torch import nn

from understudy.errors import RecipeError

_TAKEN = {"task": "the loss on labels", "total": "the sum of all losses"}

_LONGEST = 100
"""Bytes of a label, several of which name one folder of a comparison."""


def check_label(label: Any) -> None:
    """Refuse a label that something else is called by, or that names no folder.

    Raises:
        RecipeError: Says why, and how to give a method another label.
    """
    reason = _reason(label)
    if reason:
        raise RecipeError(
            f"A method cannot have the label {str(label)[:_LONGEST]!r}, {reason}: give a label of "
            "your own, such as mine, and the method's name under 'methods.mine.method'."
        )


def _reason(label: Any) -> str:
    if not isinstance(label, str):
        return "which is no text"
    if label in _TAKEN:
        return f"which is {_TAKEN[label]}"
    if forbidden := re.search(r"[./\\+\x00-\x1f\ud800-\udfff]", label):
        return f"which holds {forbidden[0]!r}: labels name modules and folders"
    if label != label.strip() or not label:
        return "which is empty, or begins or ends with a space"
    if len(label.encode()) > _LONGEST:
        return f"which is longer than {_LONGEST} bytes"
    # As a module of that name would hide an attribute.
    return "a name of PyTorch" if hasattr(nn.ModuleDict(), label) else ""
