"""Latency in fp32 and int8 for the table of docs/results.md: `python -m benchmarks.int8_latency`.

Times do not depend on weights: every network of `results/int8.json` is built anew, exported,
quantised and timed, all of them in turn. Accuracies and sizes in that file stay. To be run on a
machine with nothing else to do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from examples.foreign_network import resnet32
from understudy import models
from understudy.deployment.export import onnx_export, quantise
from understudy.deployment.export.graph import Graph
from understudy.deployment.speed.latency import Candidate, Speeds, measure
from understudy.training import hardware

RESULTS = Path(__file__).parents[1] / "results"
FILE = RESULTS / "int8.json"
COLUMNS = {
    "torch, 1 / 32 images": ("torch", "fp32"),
    "ONNX Runtime fp32, 1 / 32": ("onnxruntime", "fp32"),
    "int8, 1 / 32": ("onnxruntime", "int8"),
}
"""Column of the table → runtime and precision."""


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the row that each network stands for, by its first word, and an image for it."""
    resnet8 = models.find("resnet8", num_classes=10, view_size=28).plain()
    mobilenet = models.find("timm:mobilenetv4_conv_small", num_classes=6, view_size=64).plain()
    return {
        "ResNet-8": (resnet8, torch.randn(3, 28, 28)),
        "ResNet-32": (resnet32(), torch.randn(3, 32, 32)),
        "MobileNetV4": (mobilenet, torch.randn(3, 64, 64)),
    }


def candidate(name: str, module: nn.Module, image: Tensor, folder: Path) -> Candidate:
    """Return a network with its files in fp32 and int8."""
    fp32, int8 = folder / f"{name}.onnx", folder / f"{name}_int8.onnx"
    example = image.expand(2, *image.shape).contiguous()
    onnx_export.write_onnx(Graph(module.eval()).eval(), example, fp32)
    quantise.quantise(fp32, int8, (torch.randn(8, *image.shape) for _ in range(4)))
    return Candidate(name, name, module, image, {"fp32": fp32, "int8": int8})


def times(rounds: int) -> dict[str, dict[str, str]]:
    """Return network → column → milliseconds: medians over several measurements of all."""
    with tempfile.TemporaryDirectory(prefix="understudy") as folder:
        several = [
            candidate(name, module, image, Path(folder))
            for name, (module, image) in networks().items()
        ]
        measured = [measure(several) for _ in range(rounds)]
    return {one.name: _cells(one.name, measured) for one in several}


def _cells(name: str, measured: Sequence[Speeds]) -> dict[str, str]:
    cells = {}
    for column, (runtime, precision) in COLUMNS.items():
        both = []
        for batch in (1, 32):
            rows = [row for speeds in measured if (row := speeds.of(name))]
            ms = [x for row in rows if (x := row.ms(runtime, precision, batch)) is not None]
            both.append(f"{median(ms):.3g}" if ms else "–")
        cells[column] = f"{' / '.join(both)} ms"
    return cells


def fill(content: dict[str, Any], measured: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the content of a table with measured times in the rows of their networks."""
    columns = content["columns"]
    rows = []
    for row in content["rows"]:
        cells = measured.get(row[0].partition(" ")[0], {})
        rows.append([cells.get(title, x) for title, x in zip(columns, row, strict=True)])
    return content | {"rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the figures into `results/int8.json` and docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="Measurements of all networks.")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 0.5:
        print(f"{busy:.1f} other processes compute on this machine: times will be too long.")
    measured = times(options.rounds)
    content = fill(json.loads(FILE.read_text(encoding="utf-8")), measured)
    content["machine"] = f"One thread of {hardware.describe()['machine']}"
    content["created"] = date.today().isoformat()
    content["timed"] = (
        f"Times are medians of {options.rounds} measurements of all networks in turn"
        f"{', on a busy machine' if busy > 0.5 else ''}: `python -m benchmarks.int8_latency`."
    )
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, str(RESULTS / "tables.py")], check=True)
    for name, cells in measured.items():
        print(name, cells)


if __name__ == "__main__":
    main()
