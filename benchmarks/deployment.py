"""From two networks' names to a student that runs elsewhere: `python -m benchmarks.deployment`.

    python -m benchmarks.deployment DATA OUT [CASE ...]

Every case trains a teacher, distils a student, predicts a folder of pictures, exports, reads the
card of the exported folder, and executes its lines in a process that cannot import Understudy. OUT
receives the runs, `CASE.json` and, of all cases there are, `deployment.md` and `deployment.json`,
of which `results/deployment.json` is a copy. DATA holds the folders:

- `fruits` and `bccd`: photographs with boxes, as COCO and as VOC;
- `fruit_classes`: the same photographs in `train/CLASS` and `test/CLASS`, by their names;
- `unseen`: any other images in such folders;
- `coco128`: photographs with `photos.csv`, a column for every class.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.cli.commands import main as command_line
from understudy.data import Source
from understudy.deployment.export.run_images import RunImages, test_images
from understudy.deployment.hub.card import read_card
from understudy.experiment.run_directory import Run
from understudy.metrics import detection
from understudy.metrics.detection import Detections, GroundTruth
from understudy.training import hardware

SANE = [
    *("--training.optimizer", "adamw", "--training.lr", "0.001", "--training.weight_decay", "0.01"),
    *("--training.schedule", "cosine", "--training.warmup_epochs", "1", "--training.clip", "5"),
    *("--training.evaluate_every", "100"),
]
"""A budget that trains any network a little: AdamW, cosine, one epoch of warm-up."""
OWN = '''"""A network of one's own."""

from torch import nn


def factory(num_classes: int) -> nn.Module:
    layers = []
    for before, width in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
'''
ELSEWHERE = """
import json, sys
sys.modules["understudy"] = None  # importing it fails
import torch
from PIL import Image, ImageOps

torch.set_num_threads(1)
code, files, is_detector, target = json.load(open(sys.argv[1]))
defined = {}
exec(code, defined)
network, transform = defined["network"], defined["transform"]
outputs = []
for file in files:
    image = transform(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    with torch.no_grad():
        output = network([image]) if is_detector else network(image[None])
    output = output[1] if isinstance(output, tuple) else output
    outputs.append(output[0])
torch.save(outputs, target)
"""


@dataclass(frozen=True)
class Limits:
    """Most epochs of a training, and most training images; None for those of the case."""

    epochs: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Data:
    """Images of several cases: flags that name them, flags of their size, and pictures to predict.

    Attributes:
        named: Task, source and place.
        size: Size of the images.
        epochs: Epochs of a training.
        batch: Images per step.
        pictures: Folder of pictures, below that of all data.
    """

    named: list[str]
    size: list[str]
    epochs: int
    batch: int
    pictures: str

    def flags(self, data: Path, limits: Limits = Limits()) -> list[str]:
        """Return the flags of a training."""
        source = [word.replace("DATA", str(data)) for word in self.named]
        epochs = min(self.epochs, limits.epochs or self.epochs)
        budget = ["--training.epochs", str(epochs), "--training.batch", str(self.batch)]
        if limits.images:
            budget += ["--data.images", str(limits.images)]
        return [*source, *self.size, *budget, *SANE]


@dataclass(frozen=True)
class Case:
    """One pair of networks.

    Attributes:
        data: Name of the images.
        teacher: Flags that name the teacher, with `--student`.
        student: Flags that name the student.
        method: Names of methods, and flags of theirs.
    """

    data: str
    teacher: str
    student: str
    method: str = "kd"


_SMALL = "channels: 64, min_size: 128, max_size: 192"
_ANCHORS = "anchors: [16, 24, 32, 64, 96]"
_FLIP = ["--data.augment", "flip", "--data.decoded_side", "128"]
DATA = {
    "fruit classes": Data(
        ["--data.source", "folder", "--data.root", "DATA/fruit_classes"],
        ["--data.size", "64", "--data.augment", "resized_crop"],
        8,
        16,
        "fruit_classes/test",
    ),
    "unseen": Data(
        ["--data.source", "folder", "--data.root", "DATA/unseen"], [], 6, 32, "unseen/test"
    ),
    "fruits, several": Data(
        ["--task", "multilabel", "--data.source", "coco", "--data.root", "DATA/fruits"],
        ["--data.size", "64", "--data.augment", "squash_flip"],
        8,
        16,
        "fruits/test",
    ),
    "photographs, several": Data(
        ["--task", "multilabel", "--data.source", "csv", "--data.root", "DATA/coco128/photos.csv"],
        ["--data.size", "64", "--data.augment", "squash_flip"],
        8,
        16,
        "coco128",
    ),
    "fruits": Data(
        ["--task", "detection", "--data.source", "coco", "--data.root", "DATA/fruits"],
        [*_FLIP, "--data.decoded", "decoded/fruits"],
        6,
        8,
        "fruits/test",
    ),
    "bccd": Data(
        ["--task", "detection", "--data.source", "voc", "--data.root", "DATA/bccd"],
        [*_FLIP, "--data.decoded", "decoded/bccd"],
        4,
        8,
        "bccd/JPEGImages",
    ),
}
_RESNET, _RESNET_32 = "timm:resnet18 --student.size 64", "timm:resnet18 --student.size 32"
_VIT = "timm:vit_tiny_patch16_224 --student.options {img_size:_64}"
CASES = {
    "cnn_vit": Case("fruit classes", _RESNET, _VIT),
    "vit_cnn": Case("fruit classes", _VIT, "timm:resnet10t --student.size 64"),
    "cnn_mobilenetv4": Case("unseen", _RESNET_32, "timm:mobilenetv4_conv_small --student.size 64"),
    "convnext_efficientnet": Case(
        "unseen",
        "timm:convnext_atto --student.size 32",
        "timm:efficientnet_b0 --student.size 32",
    ),
    "own_module": Case("unseen", _RESNET_32, "own.py:factory"),
    "lshfm_folded": Case(
        "unseen", _RESNET_32, "torchvision:shufflenet_v2_x1_0 --student.size 32", "lshfm"
    ),
    "letkd_kept": Case("unseen", _RESNET_32, "timm:resnet10t --student.size 32", "letkd"),
    "multilabel": Case("fruits, several", _RESNET, "timm:resnet10t --student.size 64"),
    "photographs": Case(
        "photographs, several", _RESNET, "timm:mobilenetv3_small_100 --student.size 64"
    ),
    **{
        family: Case(
            data,
            f"{family} --student.options {{backbone:_{teacher},_{options.replace(' ', '_')}}}",
            f"{family} --student.options {{backbone:_{student},_{options.replace(' ', '_')}}}",
            "lshfm --methods.lshfm.hashes 64",
        )
        for family, data, teacher, student, options in (
            ("fasterrcnn", "fruits", "shufflenet_v2_x1_0", "shufflenet_v2_x0_5", _SMALL),
            ("retinanet", "fruits", "resnet18", "mobilenet_v2", f"{_SMALL}, {_ANCHORS}"),
            ("fcos", "bccd", "resnet18", "shufflenet_v2_x0_5", _SMALL),
            ("ssdlite", "bccd", "shufflenet_v2_x1_0", "shufflenet_v2_x0_5", "size: 128"),
        )
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run some cases, and write the table of all that have a result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--epochs", type=int, help="most epochs of a training")
    parser.add_argument("--images", type=int, help="most training images")
    options = parser.parse_intermixed_args(arguments)
    limits = Limits(options.epochs, options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    data, out = options.data.resolve(), options.out.resolve()
    os.chdir(out)  # a file of one's own is executed where it lies in the working folder
    (out / "own.py").write_text(OWN, encoding="utf-8")
    for name in options.cases:
        try:
            result = measure(name, data, out, limits)
        except (SystemExit, subprocess.CalledProcessError) as error:
            print(f"{name} failed ({error}): see log.txt", flush=True)
            continue
        (out / f"{name}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        (out / "deployment.md").write_text(table(out), encoding="utf-8")
        (out / "deployment.json").write_text(json.dumps(record(out), indent=1), encoding="utf-8")
        print(_row(result), flush=True)


def measure(name: str, data: Path, out: Path, limits: Limits) -> dict[str, Any]:
    """Go all the way with one case, and return what came of it, with processor seconds."""
    case = CASES[name]
    images, seconds = DATA[case.data], dict[str, float]()
    words = [*images.flags(data, limits), "--student.name"]
    teacher = Path("teachers") / re.sub(r"\W+", "_", f"{case.data} {case.teacher}")
    if not (out / teacher / "evaluation.json").is_file():
        command = ["train", *words, *split(case.teacher), "--out", str(teacher)]
        seconds["teacher"] = _understudy(command)
    run = out / name
    method, *more = split(case.method)
    student = ["--method", method, *more, "--teacher.weights", str(teacher), "--out", name]
    if not (run / "evaluation.json").is_file():
        command = ["distill", *words, *split(case.student), *student]
        seconds["distill"] = _understudy(command)
    predictions = f"{name}/predictions.jsonl"
    command = ["predict", name, str(data / images.pictures), "--out", predictions]
    seconds["predict"] = _understudy(command)
    boxes = "detection" in images.named
    forms = ["onnx", "hub"] if boxes else ["onnx", "torch-export", "hub"]
    command = ["export", name, "--images", "0", "--to", *forms]
    seconds["export"] = _understudy(command)
    started = _seconds_of_children()
    opened = Run.open(run)
    measured = elsewhere(opened, run / "export")
    seconds["elsewhere"] = _seconds_of_children() - started
    exported = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))
    reported = opened.evaluation
    task = test_images(opened, None, count=1).task
    budget = {"epochs": opened.recipe.training.epochs}
    budget["images"] = opened.splits["train"]["images"]
    teacher_metrics = Run.open(out / teacher).evaluation["metrics"]
    return {
        "case": name,
        "data": case.data,
        "teacher": case.teacher.partition(" ")[0],
        "student": case.student.partition(" ")[0],
        "methods": method,
        "metric": task.headline,
        "teacher_metric": teacher_metrics[task.headline],
        "reported": reported["metrics"][task.headline],
        "elsewhere": measured,
        "images": reported["images"],
        "budget": budget,
        "predictions": len((out / predictions).read_text(encoding="utf-8").splitlines()),
        "parity": exported["parity"],
        "card": str(read_card(run / "export").data),
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
    }


def split(flags: str) -> list[str]:
    """Return the words of flags; underscores stand for spaces in a mapping."""
    return [w.replace(":_", ": ").replace(",_", ", ") if "{" in w else w for w in flags.split()]


def _understudy(words: Sequence[str]) -> float:
    """Run a command as the command line does, and return the seconds of the processor it took.

    What it prints goes to `log.txt` of the present folder.
    """
    started = time.process_time()
    with Path("log.txt").open("a", encoding="utf-8") as log:
        print(f"$ understudy {' '.join(words)}", file=log, flush=True)
        with redirect_stdout(log), redirect_stderr(log):
            command_line(words)
    return time.process_time() - started


def _seconds_of_children() -> float:
    """Return the seconds of the processor in all processes that were waited for."""
    times = os.times()
    return times.children_user + times.children_system


def elsewhere(run: Run, folder: Path) -> float | None:
    """Return the metric of an exported folder that is loaded by the lines of its card.

    The lines are executed where Understudy cannot be imported, on the files of the test images.
    """
    test = test_images(run, None, count=None)
    files, boxes = (
        [str(path.resolve()) for path in test.source.paths],
        run.recipe.task == "detection",
    )
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S)
    for before in blocks[:-1]:
        subprocess.run([sys.executable, "-c", before], cwd=folder, check=True)
    job = folder / "elsewhere.json"
    job.write_text(json.dumps([blocks[-1], files, boxes, "outputs.pt"]), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, job.name]
    subprocess.run(command, cwd=folder, check=True)
    outputs = torch.load(folder / "outputs.pt")
    return average_precision(test, outputs) if boxes else test.metric(torch.stack(outputs))


def average_precision(test: RunImages, outputs: Sequence[dict[str, Tensor]]) -> float | None:
    """Return COCO's AP50 of the boxes found in test images, in percent."""
    numbers = torch.arange(len(outputs))
    counts = torch.tensor([len(each["scores"]) for each in outputs])
    boxes, labels, scores = (
        torch.cat([each[key] for each in outputs]) for key in ("boxes", "labels", "scores")
    )
    found = Detections(numbers.repeat_interleave(counts), boxes, labels - 1, scores)
    return detection.coco(found, _truth(test.source), len(test.source.classes)).metrics["AP50"]


def _truth(source: Source) -> GroundTruth:
    objects = [source.target(number) for number in range(len(source))]
    counts = torch.tensor([len(each["boxes"]) for each in objects])
    keys = ("boxes", "labels", "difficult", "crowd", "areas")
    columns = (torch.cat([torch.as_tensor(each[key]) for each in objects]) for key in keys)
    return GroundTruth(torch.arange(len(objects)).repeat_interleave(counts), *columns)


def record(out: Path) -> dict[str, Any]:
    """Return the content of `results/deployment.json`: all cases that have a result."""
    left_out = ("card", "seconds")
    pairs = [{key: x for key, x in y.items() if key not in left_out} for y in _results(out)]
    created = date.today().isoformat()
    return {"machine": hardware.describe()["machine"], "created": created, "pairs": pairs}


def _results(out: Path) -> list[dict[str, Any]]:
    """Return what came of the cases that were run."""
    files = [out / f"{name}.json" for name in CASES]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def table(out: Path) -> str:
    """Return a row for every case that has a result, in Markdown."""
    titles = (
        *("pair", "method", "data", "teacher", "student, reported", "loaded elsewhere"),
        *("ONNX: difference / largest output", "decisions changed"),
        "processor seconds: teacher, distill, predict, export, elsewhere",
    )
    rows = [titles, ("---",) * len(titles), *map(_row, _results(out))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    onnx, seconds = result["parity"]["onnx"], result["seconds"]
    steps = ("teacher", "distill", "predict", "export", "elsewhere")
    return (
        f"{result['teacher']} → {result['student']}",
        result["methods"],
        f"{result['data']} ({result['images']})",
        f"{result['teacher_metric']:.2f}",
        f"{result['metric']} {result['reported']!r}",
        repr(result["elsewhere"]),
        f"{onnx['difference']:.1e} / {onnx['largest']:.3g}",
        f"{onnx['changed']:,} of {onnx['decisions']:,}",
        ", ".join(f"{seconds[step]:.0f}" if step in seconds else "–" for step in steps),
    )


if __name__ == "__main__":
    main()
