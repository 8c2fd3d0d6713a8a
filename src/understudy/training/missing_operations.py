"""Say in a sentence that the GPU of a Mac lacks an operation that a run needs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from understudy.errors import RecipeError


@contextmanager
def missing_operations_explained() -> Iterator[None]:
    """Replace PyTorch's error for an operation that Apple's GPUs lack by a sentence.

    Raises:
        RecipeError: The operation is missing, or the number format float64 is.
    """
    try:
        yield
    # Of operations and of number formats, in this order; the first is a RuntimeError too.
    except (RuntimeError, TypeError) as error:
        if reason := _reason(" ".join(str(error).split())):
            raise RecipeError(f"{reason} What was saved is intact.") from error
        raise


def _reason(text: str) -> str:
    if "MPS" not in text:
        return ""
    if operation := re.search(
        r"operator '([\w:.]+)' is not currently (implemented|supported)", text
    ):
        return (
            f"The GPU of this Mac (mps) has no {operation[1]}, which this run needs: set the "
            "environment variable PYTORCH_ENABLE_MPS_FALLBACK=1, which computes that on the CPU, "
            "or give --device cpu."
        )
    if "float64" in text:
        return (
            "The GPU of this Mac (mps) has no numbers in float64, which this run needs: give "
            "--device cpu."
        )
    return ""
