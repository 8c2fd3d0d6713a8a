"""Try the transforms of a recipe on an image of noise, before anything is trained."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from understudy.config.image_size import Size, sides
from understudy.errors import DataError, RecipeError
from understudy.functional import seeded

_WHOLE = (96, 128)
"""Height and width of the image of noise that stands for a whole one."""
_TRIES = 6
_ROUNDING = 1e-5


def check_on_whole_image(steps: Sequence[Callable[..., Any]]) -> None:
    """Refuse transforms of whole images that do not return one, or not the same for one seed.

    Raises:
        RecipeError: As above.
    """
    if steps:
        _check(steps, _WHOLE, None)


def check_on_view(steps: Sequence[Callable[..., Any]], size: Size) -> None:
    """Refuse transforms that do not return a view of this size, or not the same for one seed.

    Raises:
        RecipeError: As above.
    """
    if steps:
        _check(steps, sides(size), sides(size))


def check_with_boxes(transform: Callable[..., Any]) -> None:
    """Refuse transforms that cannot move the boxes of objects with the image.

    Raises:
        RecipeError: As above, or as for whole images.
    """
    image, target = tv_tensors.Image(_noise(_WHOLE)), _target()
    try:
        with seeded(0):
            moved, _ = transform(image, target)
    except DataError as error:
        raise RecipeError(
            f"{str(error).rstrip('.')}. In detection a transform must move boxes with the "
            "image, as RandomAffine, RandomZoomOut or RandomIoUCrop do, or change colours alone."
        ) from error
    _check_form(moved, None)


def _check(
    steps: Sequence[Callable[..., Any]], sides: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    image = _noise(sides)
    for seed in range(_TRIES):
        first, again = (_applied(steps, image, seed) for _ in range(2))
        _check_form(first, expected)
        if not torch.equal(first, again):
            raise RecipeError(
                "data.transforms give two images for one seed, so that no run could be repeated or "
                "continued: let your function draw random numbers from torch, NumPy or Python's "
                "`random`, and keep no generator or state of its own."
            )


def _applied(steps: Sequence[Callable[..., Any]], image: Tensor, seed: int) -> Any:
    with seeded(seed):
        result: Any = image.clone()
        for step in steps:
            result = step(result)
    return result


def _check_form(image: Any, sides: tuple[int, int] | None) -> None:
    shape = (3, *(sides or ("height", "width")))
    expected = f"a tensor {shape} of uint8, or of floats from 0 to 1".replace("'", "")
    if not isinstance(image, Tensor):
        raise RecipeError(
            f"data.transforms return {type(image).__name__}, and must return {expected}."
        )
    fits = tuple(image.shape[1:]) == sides if sides else image.ndim == 3
    if not fits or image.shape[0] != 3:
        raise RecipeError(
            f"data.transforms return an image of shape {tuple(image.shape)}, and must return "
            f"{expected}: the size of views is data.size; for another crop set data.augment, or "
            "`before: true` for a transform of the whole image."
        )
    if image.dtype == torch.uint8:
        return
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise RecipeError(f"data.transforms return values of {kind}, and must return {expected}.")
    least, most = float(image.min()), float(image.max())
    if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):
        raise RecipeError(
            f"data.transforms return values from {least:.3g} to {most:.3g}, and must return "
            f"{expected}: networks normalise by themselves."
        )


def _noise(sides: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *sides), dtype=torch.uint8, generator=generator)


def _target() -> dict[str, Any]:
    boxes = torch.tensor([[20.0, 30.0, 60.0, 80.0]])
    none = torch.zeros(1, dtype=torch.bool)
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=_WHOLE),
        "labels": torch.zeros(1, dtype=torch.int64),
        "difficult": none,
        "crowd": none,
        "areas": torch.tensor([2000.0]),
    }
