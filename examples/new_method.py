"""Write a method in one file, and compare it with the control.

The loss is the angle between the penultimate features. Name your method by its import path,
`module:Class`, where you would write the name of a shipped method.

    python examples/new_method.py [DIRECTORY]
"""

import sys
from pathlib import Path
from typing import ClassVar, final

from jaxtyping import Float
from rich import print
from torch import Tensor, nn

import understudy
from understudy import Batch, Features, Shapes, batch_mean
from understudy.functional import cosine


@final
class Angle(understudy.Method):
    """L = 1/B Σᵢ (1 − cos(P sᵢ, tᵢ)), where P projects the student's feature."""

    published_weight: ClassVar[float] = 2.0

    def __init__(self, student: Shapes, teacher: Shapes, *, bias: bool = False) -> None:
        super().__init__()
        dim_s, dim_t = student.vector("penultimate"), teacher.vector("penultimate")
        self.projector = nn.Linear(dim_s, dim_t, bias=bias)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss."""
        s, t = self.projector(student["penultimate"]), teacher["penultimate"]
        return batch_mean(1 - cosine(s, t))


def main(root: Path) -> None:
    """Train a small teacher, then compare the method with the control over three seeds."""
    short = {"data.images": 200, "data.size": 16, "student.size": 16}
    short |= {"training.epochs": 2, "training.evaluate_every": 2, "training.schedule": "cosine"}
    teacher = understudy.train({"student": "resnet14"}, short, out=root / "teacher")
    recipe = {
        "student": "resnet8",
        "teacher": {"weights": str(teacher.path)},
        "methods": {"angle": {"method": "new_method:Angle"}},
    }
    comparison = understudy.compare(recipe, short, seeds=[0, 1, 2], out=root)
    print(comparison.table(), f"page: {understudy.report(root)}", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/new_method"))
