"""The demonstration: a teacher, a control and four methods on images that come with Understudy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from understudy import recipe
from understudy.comparison import compare
from understudy.run import Run, train
from understudy.watcher import Watcher

TEACHER, STUDENT = "fashion/teacher", "fashion/demo"


def demo(
    *,
    out: str | Path | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str | None = None,
    watcher: Watcher | None = None,
) -> Path:
    """Train the teacher of the recipe `fashion/teacher`, then compare by the recipe `fashion/demo`.

    Returns:
        The comparison's directory; whatever is finished in it already is not run again.
    """
    root = Path(out) if out else Path("runs") / "demo"
    place = Run(root / "teacher")
    teacher = train(
        recipe.load(TEACHER), out=place.path, resume=place.begun, device=device, watcher=watcher
    )
    wanted = recipe.load(STUDENT)
    wanted = replace(wanted, teacher=replace(wanted.teacher, weights=str(teacher.path)))
    compare(wanted, seeds=seeds, out=root, device=device, watcher=watcher)
    return root
