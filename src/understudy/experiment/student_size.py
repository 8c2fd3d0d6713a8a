"""Build a student at the side of the views that are asked for, where it can compute there."""

from dataclasses import replace

from understudy.config.image_size import Size, in_words
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe, Student
from understudy.errors import NetworkError
from understudy.experiment import networks
from understudy.functional import seeded
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.tasks import Task


def built_student(
    recipe: Recipe, num_classes: int | None, task: Task, *, view_size: Size
) -> tuple[Wrapped, Recipe, dict[str, str]]:
    """Build the student of a recipe, and choose its `size` if that is `auto`: that of `data.size`.

    A transformer of timm, which has weights for every position, is built for it by `img_size`.

    Args:
        recipe: Names the student.
        num_classes: As for `networks.student`.
        task: As for `networks.student`.
        view_size: As for `networks.student`.

    Returns:
        The student, the recipe with its size, and the reason for each key that was chosen.

    Raises:
        NetworkError: It cannot be built.
    """

    def build(spec: Student) -> Wrapped:
        with seeded(recipe.seed):
            return networks.student(spec, num_classes, task, view_size=view_size)

    if recipe.student.size != AUTO:
        student, sized = networks.at_its_size(recipe.student, build)
        return student, replace(recipe, student=sized), {}
    spec, side = replace(recipe.student, size=None), recipe.data.size
    student = build(spec)
    own = student.input.size if isinstance(student, Network) else None
    if side is None or own in (None, side):
        return student, replace(recipe, student=spec), {}
    built_for = f"was built for {in_words(own or 0)}"
    try:
        student, sized = networks.at_its_size(replace(spec, size=side), build)
    except NetworkError:
        reason = f"{spec.name} {built_for} and cannot compute at data.size {in_words(side)}"
        return build(spec), replace(recipe, student=spec), {"student.size": reason}
    reason = f"that of data.size, where it {built_for}"
    return student, replace(recipe, student=sized), {"student.size": reason}
