"""Compare several students of one teacher: a comparison for each, behind one bank.

The directory holds `students.json`, whose form is `StudentComparison`, a comparison directory for
every student, and the bank that all of them share. It may be interrupted and continued.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from understudy.checks.messages import unrepeated
from understudy.comparison.arms import SIZE, check_seeds
from understudy.comparison.compare import at_once, compare
from understudy.comparison.several import SeveralComparisons
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment.call import Call
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.own_images import given


@final
@dataclass(frozen=True, repr=False)
class StudentComparison(SeveralComparisons):
    """Comparisons of several students of one teacher, as `compare_students` returns them."""

    FILE = "students.json"
    KEY = "students"
    COMMAND = "understudy compare --students"


@unrepeated()
def compare_students(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    students: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    jobs: int | None = 1,
    threads: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    images: ImagesOfRecipes | None = None,
) -> StudentComparison:
    """Compare methods with a control for each of several students, behind one bank.

    A student is judged against its own control. The report shows accuracy against latency of all
    networks, and which of them no other one beats in both.

    Args:
        recipe: As for `compare`; its student gives all but the name.
        students: Names of networks, such as `resnet8` or `timm:mobilenetv3_small_100`.
        overrides: Keys of the recipe to replace; see `Recipe.load`.
        data: Images of a program; see `compare`.
        methods: Arms of every student; see `compare`.
        seeds: One run of every arm per seed.
        out: Directory; default `runs/<recipe.name>`. Finished runs in it are kept.
        resume: Continue interrupted comparisons; refuse if there is none in `out`.
        device: Name of a device; see `compare`.
        jobs: Runs at once; see `compare`.
        threads: Threads of the CPU for each run; see `compare`.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.
        images: As for `compare`.

    Returns:
        The comparisons, one for each student.

    Raises:
        RecipeError: A student is named twice, there are fewer than two, or as for `compare`.
        UnderstudyError: As for `compare`.

    Example:
        teacher = {"teacher.weights": "runs/teacher"}
        students = understudy.compare_students("fashion/demo", ["resnet8", "resnet14"], teacher)
        understudy.report(students)
    """
    jobs = at_once(jobs, data)
    with given(Recipe.load(recipe, overrides), data) as prepared:
        recipe = named(prepared, "comparison")
        check_seeds(seeds)
        root = Path(out) if out else Path("runs") / recipe.name
        folders = _folders(students)
        StudentComparison.check_place(root, folders, resume=resume)
        bank = root / "bank" / SIZE
        arguments = {
            "recipe": recipe.to_dict(),
            "students": list(students),
            "methods": list(methods),
        }
        Call("compare_students", arguments | {"seeds": list(seeds), "threads": threads}).write(root)
        images, done = images or ImagesOfRecipes(), {}
        for student, folder in folders.items():
            done[student] = compare(
                of_student(recipe, student),
                methods=methods,
                seeds=seeds,
                out=root / folder,
                bank=bank,
                device=device,
                jobs=jobs,
                threads=threads,
                progress=progress,
                callback=callback,
                images=images,
            )
        metric = next(iter(done.values())).metric
        result = StudentComparison(recipe.name, metric, folders, root)
        result.write()
        return result


def of_student(recipe: Recipe, student: str) -> Recipe:
    """Return the recipe with another student of the same settings."""
    return replace(
        recipe, name=f"{recipe.name} {student}", student=replace(recipe.student, name=student)
    )


def _folders(students: Sequence[str]) -> dict[str, str]:
    """Return the folder of each student.

    Raises:
        RecipeError: There are fewer than two, or two would share a folder.
    """
    folders = {name: re.sub(r"[^\w.-]+", "-", name).strip("-.") or "student" for name in students}
    if len(students) < 2:
        raise RecipeError(
            "--students compares two students or more; for a single one use --student.name."
        )
    if len(set(folders.values())) < len(students) or "bank" in folders.values():
        raise RecipeError(
            f"The students {', '.join(students)} do not have names of their own: name each once."
        )
    return folders
