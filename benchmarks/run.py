"""Measure the cost of distillation and store the ratios: `make bench`.

    python -m benchmarks [PART ...] [--rounds 12] [--peer repdistiller=PATH ...] [--out FILE]

Measured parts replace those of an earlier run in the file. docs/benchmarks.md explains them.
"""

import argparse
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

# Before torch looks for a GPU: all ratios are of processor time, those of the peers too.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

from benchmarks import peers
from benchmarks.pairs import BATCH
from understudy.training import hardware

PARTS = {
    "steps": "steps",
    "peers": "against",
    "first": "first",
    "losses": "losses",
    "input": "input",
    "reading": "reading",
    "fidelity": "fidelity",
    "growth": "growth",
    "detection": "detection",
}
"""Part → module whose `measure` returns it."""

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: list[str] | None = None) -> None:
    """Measure the selected parts, and store each as soon as it is done."""
    options = _parser().parse_args(arguments)
    checkouts = dict(options.peer)
    parts = options.parts or [part for part in PARTS if part != "peers" or checkouts]
    if "peers" in parts and not checkouts:
        raise SystemExit("The part 'peers' needs a checkout: give --peer NAME=PATH.")
    torch.set_num_threads(1)
    for part in parts:
        started = time.monotonic()
        print(f"{part} …", flush=True)
        given = (checkouts,) if part == "peers" else ()
        found = import_module(f"benchmarks.{PARTS[part]}").measure(options.rounds, *given)
        _keep(options.out, part, found, checkouts)
        print("\n".join(_lines(found)), f"\n{part}: {time.monotonic() - started:.0f} s", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=12, help="counted turns of each variant")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=_peer,
        metavar="NAME=PATH",
        help=f"a checkout to measure against: {', '.join(peers.names())}",
    )
    name = f"bench_{slug(hardware.describe()['machine'])}.json"
    parser.add_argument(
        "--out", type=Path, default=RESULTS / name, help="results; default: %(default)s"
    )
    return parser


def _peer(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in peers.names():
        raise argparse.ArgumentTypeError(f"there is no {name!r} among {', '.join(peers.names())}")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path!r}")
    return name, Path(path).resolve()


def slug(text: str) -> str:
    """Return the name of a machine as part of a file name."""
    return re.sub(r"\W+", "_", text).strip("_").lower()


def _keep(path: Path, part: str, found: dict[str, Any], checkouts: Mapping[str, Path]) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}
    about = {key: value for key, value in hardware.describe().items() if key != "command"}
    content |= about | {"batch": BATCH}
    if part == "peers":
        content["peers"] = {name: _commit(checkout) for name, checkout in checkouts.items()}
    content["parts"][part] = found
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    if part == "growth":
        import_module("benchmarks.growth").draw(found, path.with_suffix(".svg"))


def _commit(checkout: Path) -> str:
    """Return the commit of a checkout."""
    asked = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _lines(found: Any, name: str = "") -> list[str]:
    """Return a line for each figure of a part: median, and quartiles in brackets."""
    if isinstance(found, dict) and "median" not in found:
        return [line for key, value in found.items() for line in _lines(value, f"{name}  {key}")]
    if isinstance(found, dict):
        found = "{median:.4g} [{low:.4g}, {high:.4g}]".format(**found)
    return [f"{name}: {found}"]


if __name__ == "__main__":
    main()
