"""Three small data sets, a teacher of each that is trained in a second, and ways to spoil it."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tests.support.plain_cnn import PlainCNN
from tests.support.small_images import CLOTHES
from tests.support.small_runs import CNN
from understudy import data

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
COLOURS = {"blue": (40, 60, 210), "green": (40, 180, 60), "red": (220, 40, 50)}
SHAPES = ("bar", "disc")
OPTIONS = {"width": 16, "norm": True}
COUNTS = {"train": 40, "test": 15}


@dataclass(frozen=True)
class DataSet:
    """A data set with the keys of a recipe that read it."""

    task: str
    keys: dict[str, Any]
    classes: tuple[str, ...]


DataSetMaker = Callable[[], DataSet]
"""Makes a data set, once."""


@cache
def _folder() -> Path:
    root = Path(tempfile.mkdtemp(prefix="planted"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@cache
def clothes() -> DataSet:
    """Grey clothes of ten kinds."""
    classes = tuple(sorted(path.name for path in (Path(CLOTHES) / "train").iterdir()))
    return DataSet("classification", {"source": "folder", "root": CLOTHES}, classes)


@cache
def signs() -> DataSet:
    """Bars and discs in three colours, one in each picture: six classes."""
    draw = torch.Generator().manual_seed(3)
    names = sorted(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    for split, count in COUNTS.items():
        for name in names:
            for number in range(count):
                file = _folder() / "signs" / split / name / f"{number:03}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                _sign(*name.split(), draw).save(file)
    keys = {"source": "folder", "root": str(_folder() / "signs")}
    return DataSet("classification", keys, tuple(names))


@cache
def marks() -> DataSet:
    """The same pictures, with colour and shape as labels: several classes in each."""
    signs()
    classes = (*COLOURS, *SHAPES)
    lines = [",".join(["split", "file_name", *classes])]
    for split in COUNTS:
        for file in sorted((_folder() / "signs" / split).rglob("*.png")):
            present = (str(int(name in file.parent.name)) for name in classes)
            lines.append(",".join([split, str(file.relative_to(_folder())), *present]))
    (_folder() / "marks.csv").write_text("\n".join(lines))
    keys = {"source": "csv", "root": str(_folder() / "marks.csv")}
    return DataSet("multilabel", keys, classes)


def _sign(colour: str, shape: str, draw: torch.Generator) -> Image.Image:
    grey = torch.randint(70, 150, (8, 8, 3), generator=draw, dtype=torch.uint8)
    image = Image.fromarray(grey.numpy()).resize((32, 32), Image.Resampling.BICUBIC)
    x, y, side = (int(v) for v in torch.randint(0, 12, (3,), generator=draw))
    box = (x, y, x + 10 + side // 2, y + (4 if shape == "bar" else 10 + side // 2))
    outline = ImageDraw.Draw(image)
    (outline.rectangle if shape == "bar" else outline.ellipse)(box, fill=COLOURS[colour])
    return image


@cache
def trained(dataset: DataSetMaker) -> Path:
    """Train a teacher on a data set; return its file of weights, which names its classes."""
    made = dataset()
    source = data.find(made.keys["source"]).load(made.keys["root"], "train")
    pixels = torch.stack([source.image(i) for i in range(len(source))]).float() / 255
    images = (pixels - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    file = _folder() / f"{dataset.__name__}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _fitted(images, source.labels, len(made.classes))
    save_file(network.state_dict(), file, metadata={"classes": json.dumps(made.classes)})
    return file


def _fitted(images: Tensor, labels: Tensor, classes: int) -> PlainCNN:
    network = PlainCNN(classes, dropout=0.0, copies=0, **OPTIONS)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(90):
        rows = torch.randint(len(images), (64,))
        logits = network(images[rows])
        if labels.ndim == 1:
            loss = F.cross_entropy(logits, labels[rows])
        else:
            loss = F.binary_cross_entropy_with_logits(logits, labels[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def spoiled(dataset: DataSetMaker, folder: Path, kind: str) -> Path:
    """Write the weights of a teacher with a fault, without the names of its classes.

    Args:
        dataset: The data set it was trained on.
        folder: Where to write.
        kind: `none`; `reversed` or `shuffled` classes; `bgr`; a `head` that was never trained;
            `features` that are the same for all images.
    """
    state = load_file(trained(dataset))
    classes = len(dataset().classes)
    if kind in ("reversed", "shuffled"):
        draw = torch.Generator().manual_seed(1)
        order = torch.randperm(classes, generator=draw)
        order = torch.arange(classes).flip(0) if kind == "reversed" else order
        state |= {key: state[key][order].contiguous() for key in ("fc.weight", "fc.bias")}
    if kind == "bgr":
        state["stem.0.weight"] = state["stem.0.weight"].flip(1).contiguous()
    if kind == "head":
        fresh = torch.nn.Linear(state["fc.weight"].shape[1], classes)
        state |= {"fc.weight": fresh.weight.detach(), "fc.bias": fresh.bias.detach()}
    if kind == "features":
        state = {k: torch.zeros_like(v) if v.ndim > 1 else v for k, v in state.items()}
    save_file(state, folder / "teacher.safetensors")
    return folder / "teacher.safetensors"


def distillation(dataset: DataSetMaker, weights: Path, **replaced: Any) -> dict[str, Any]:
    """Return a recipe with a teacher of a data set, prepared as it was trained."""
    made = dataset()
    return {
        "task": made.task,
        "data": made.keys,
        "teacher.name": CNN,
        "teacher.weights": str(weights),
        "teacher.options": OPTIONS,
        "teacher.mean": MEAN,
        "teacher.std": STD,
        "student.mean": MEAN,
        "student.std": STD,
        "methods": {"kd": {}},
        **replaced,
    }
