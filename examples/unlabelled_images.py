"""Train a student on images without labels: it learns from the teacher alone.

The script writes a folder of images that come with Understudy; use your own folder instead. It
prints how close the student is to the teacher, measured on images that it was not trained on.

    python examples/unlabelled_images.py [DIRECTORY]
"""

import sys
from pathlib import Path

from PIL import Image

import understudy
from understudy.data.sources import fashion


def main(root: Path) -> None:
    """Train a teacher with labels, then a student without any."""
    short = {"data.images": 600, "data.size": 16, "student.size": 16}
    short |= {"training.epochs": 5, "training.evaluate_every": 5, "training.schedule": "cosine"}
    teacher = understudy.train({"student": "resnet14"}, short, out=root / "teacher")

    folder = root / "images"
    folder.mkdir()
    for i, image in enumerate(fashion.load("", "train").pixels[:600]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:04}.png")

    recipe = {
        "task": "none",
        "data": {"source": "folder", "root": str(folder), "size": 16, "validation": 0.2},
        "student": {"name": "resnet8", "size": 16},
        "teacher": {"weights": str(teacher.path)},
        "methods": {"lshfm": {}, "kd": {}},
        "training": {"epochs": 5, "schedule": "cosine"},
    }
    for epoch in understudy.distill(recipe, out=root / "student").history:
        fidelity = epoch["fidelity"]
        agreement, cka = fidelity["agreement"], fidelity["cka"]
        print(f"epoch {epoch['epoch']}  agreement {agreement:.3f}  cka {cka:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/unlabelled_images"))
