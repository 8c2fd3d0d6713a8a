r"""Compare what is chosen for photographs with the defaults of before, over three seeds.

    python -m benchmarks.photograph_defaults --folder DIR --classes-of 30 50 \
        --teacher FILE.py:FACTORY --weights FILE --student FILE.py:FACTORY --size 32 --out OUT
    python -m benchmarks.photograph_defaults --sets bccd fruits coco128 --out OUT

The first form takes photographs of a folder of `train` and `test`, so many of each class, and a
teacher that is trained already. The second cuts annotated objects out of unpacked folders in COCO's
format (`annotations*.json` beside or above the images), with a border, as one folder of about 3,000
photographs of different sizes, a class for each kind of object with at least twenty, and trains the
teacher first.

For each seed a student is trained by `kd`: once naming nothing else, once with the values that
recipes had by default before (`base: _papers`). Both have the same side of views, images and
teacher, and the same number of epochs: what is chosen for so many images, which is that of before
(240) for up to 3,000 images, or `--epochs`. The same command continues; after `--minutes` no
further run is begun. `photograph_defaults.json` holds the numbers.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

from PIL import Image

import understudy
from understudy.config.tables import PAPERS, merged, read

SEEDS, MOST, FEWEST, OF_A_CLASS = (0, 1, 2), 3000, 20, 600
SHORTEST = 24
"""Shorter side in pixels of the smallest object that is cut out."""


def photographs(sets: list[Path], folder: Path) -> Path:
    """Cut the objects of all sets out, a fifth of each class as test images; return the folder."""
    if (folder / "test").is_dir():
        return folder
    crops = list(_objects(sets))
    Random(0).shuffle(crops)
    counts = Counter(name for name, _, _ in crops)
    kept: Counter[str] = Counter()
    for name, file, box in crops:
        if counts[name] < FEWEST or kept[name] >= OF_A_CLASS or sum(kept.values()) >= MOST:
            continue
        kept[name] += 1
        split = "test" if kept[name] % 5 == 0 else "train"
        path = folder / split / name / f"{kept[name]}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.convert("RGB").crop(box).save(path, quality=92)
    return folder


def part_of(folder: Path, numbers: tuple[int, int], out: Path) -> Path:
    """Link so many training and test images of each class of a folder; return the new folder."""
    for split, number in zip(("train", "test"), numbers, strict=True):
        for of_class in sorted((folder / split).iterdir()):
            for file in sorted(of_class.iterdir())[:number]:
                link = out / split / of_class.name / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
    return out


def _objects(sets: list[Path]) -> Iterator[tuple[str, Path, tuple[int, int, int, int]]]:
    """Yield class, image and box, a fifth wider than the object, of everything annotated."""
    for root in sets:
        images = {path.name: path for path in root.rglob("*") if path.suffix in (".jpg", ".jpeg")}
        for file in sorted(root.rglob("*.json")):
            content = json.loads(file.read_text())
            names = {each["id"]: each["name"] for each in content["categories"]}
            of_image = {each["id"]: each for each in content["images"]}
            for each in content["annotations"]:
                image = of_image[each["image_id"]]
                path = images.get(Path(image["file_name"]).name)
                x, y, width, height = each["bbox"]
                if path is None or each.get("iscrowd") or min(width, height) < SHORTEST:
                    continue
                left, top = max(0, int(x - width / 10)), max(0, int(y - height / 10))
                right = min(image["width"], int(x + 1.1 * width))
                bottom = min(image["height"], int(y + 1.1 * height))
                yield names[each["category_id"]].lower(), path, (left, top, right, bottom)


def recipe(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a user names, and the sides and epochs that both forms share."""
    return {
        "data": {"source": "folder", "root": str(data), "size": options.size},
        "student": {"name": options.student, **pixels(options)},
        "training": {"precision": options.precision}
        | ({"epochs": options.epochs} if options.epochs else {}),
    }


def pixels(options: argparse.Namespace) -> dict[str, Any]:
    """Return side, mean and deviation of both networks, as far as they are named."""
    keys = {"size": options.size, "mean": options.mean, "std": options.std}
    return {key: value for key, value in keys.items() if value is not None}


def before(keys: dict[str, Any]) -> dict[str, Any]:
    """Return the same with all that is left open as it was by default.

    It is measured after the last epoch alone, since no epoch is chosen.
    """
    form: dict[str, Any] = merged(read(PAPERS), keys)
    return {**form, "training": {**form["training"], "evaluate_every": form["training"]["epochs"]}}


def trained(keys: dict[str, Any], out: Path, *, methods: bool) -> Any:
    """Train a run, or continue it."""
    run = understudy.distill if methods else understudy.train
    return run(keys, out=out, resume=(out / "recipe.yaml").is_file(), progress=True)


def main() -> None:
    """Measure, print the table, and write the numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photograph_defaults", description=__doc__
    )
    parser.add_argument("--sets", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--classes-of", nargs=2, type=int, default=(30, 50))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", default="timm:test_resnet")
    parser.add_argument("--teacher", default="timm:resnet10t")
    parser.add_argument("--weights", help="of the teacher; without them it is trained")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--mean", nargs=3, type=float)
    parser.add_argument("--std", nargs=3, type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    if (options.sets is None) == (options.folder is None):
        parser.error("Give --sets or --folder.")
    until = time.monotonic() + 60 * options.minutes
    place = options.out / "photographs"
    data = (
        photographs(options.sets, place)
        if options.sets
        else part_of(options.folder, tuple(options.classes_of), place)
    )
    keys = recipe(data, options)
    if options.weights:
        teacher = {"name": options.teacher, "weights": options.weights, **pixels(options)}
        score = None
    else:
        of_teacher = {**keys, "student": {"name": options.teacher, **pixels(options)}}
        run = trained(of_teacher, options.out / "teacher", methods=False)
        teacher, score = {"weights": str(run.path)}, run.evaluation["metrics"]["top1"]
    keys |= {"teacher": teacher, "methods": {"kd": {}}}
    scores: dict[str, list[float]] = {"before": [], "chosen": []}
    for seed in options.seeds:
        for name, form in (("chosen", keys), ("before", before(keys))):
            if time.monotonic() > until:
                print(f"The time is over before {name}, seed {seed}: the same command goes on.")
                continue
            run = trained({**form, "seed": seed}, options.out / f"{name}_{seed}", methods=True)
            scores[name].append(run.evaluation["metrics"]["top1"])
            score = run.evaluation["teacher"]["metrics"]["top1"]
    differences = [c - b for b, c in zip(scores["before"], scores["chosen"], strict=False)]
    content = {
        "teacher": score,
        "epochs": options.epochs or "by default",
        **scores,
        "chosen - before": differences,
    }
    (options.out / "photograph_defaults.json").write_text(json.dumps(content, indent=1))
    for name in ("before", "chosen", "chosen - before"):
        values: list[float] = content[name]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        print(f"{name}: {fmean(values):.2f}{spread} top-1" if values else f"{name}: not measured")


if __name__ == "__main__":
    main()
