"""A teacher whose classifier was never trained: pretrained weights, built for other classes.

timm and torchvision give a network of another number of classes a new classifier, and a file that
is saved then looks like any other. Its features are good and its logits noise.
"""

from collections.abc import Iterator

from understudy.checks._teacher_judgement import judgement
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding

SHORT, OF_METHODS, SECONDS = True, True, 2.5

CHECK = "reset_head"


def check(examined: Examined) -> Iterator[Finding]:
    """Find a teacher at chance whose classifier's weights are as initialised."""
    judged = judgement(examined)
    if judged is None or not judged.untrained:
        return
    said = (
        "The teacher's classifier looks as if no training had changed it: its score on "
        f"{judged.images} {judged.split} images is {judged.score:.1f}, that of its answers for "
        f"other images {judged.random:.1f}, that of a linear probe on its features "
        f"{judged.probe:.1f}"
    )
    methods = examined.experiment.distiller.trainable.methods.items()
    readers = [label for label, method in methods if getattr(method, "compares_classes", False)]
    if not readers:
        yield Finding(CHECK, "note", f"{said}. The methods of this recipe do not read its logits.")
        return
    spec = examined.recipe.teacher
    named = f"--student.name {spec.name} " if spec.name else ""
    yield Finding(
        CHECK,
        judged.level,
        f"{said}, and {', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} its logits.",
        advice=(
            f"Train it on these classes first, understudy train {named}--student.weights "
            f"{spec.weights or 'FILE'} …, and give that run as --teacher.weights."
        ),
    )
