"""Notice boxes that are written in another form than their data set's format says."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from understudy.errors import DataError

ROUNDING = 0.5
"""Pixels by which a box may reach outside of its image without being a fault."""

FORMS = {"size": "x, y, width and height", "centre": "centre, width and height"}
"""Form of the boxes of a format → in words."""


def refuse_corners(
    boxes: Float[Tensor, "objects 4"], limits: Float[Tensor, "objects 4"], form: str, root: Path
) -> None:
    """Refuse boxes that are two corners where their format has a corner or centre and the size.

    Read as they should be, many of them leave their image; as corners, all of them fit. Clipped to
    their images they would be silently wrong.

    Args:
        boxes: Corners, computed from the numbers by the form of the format.
        limits: Width, height, width and height of the image of each.
        form: One of `FORMS`.
        root: Folder of the data set, for the error.

    Raises:
        DataError: They are.
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    start, size = (first if form == "size" else (first + second) / 2), second - first
    inside = (start >= -ROUNDING).all(1) & (size <= limits[:, :2] + ROUNDING).all(1)
    are_corners = bool((inside & (size > start).all(1)).all())
    leaves = ((first < -ROUNDING) | (second > limits[:, :2] + ROUNDING)).any(1)
    count = int(leaves.sum())
    # Of true sizes, not all are larger than their places: a quarter of the boxes is enough.
    if are_corners and count >= max(2, len(boxes) / 4):
        raise DataError(
            f"{count} of the {len(boxes)} boxes in {root} leave their images if they "
            f"are {FORMS[form]}, as this format has them, and all fit if they are two corners (x1, "
            f"y1, x2, y2): write {FORMS[form]}."
        )
