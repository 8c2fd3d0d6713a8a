"""Run the blocks of a page in order, in the working folder: `run_page.py BLOCKS.json`.

Every recipe is shortened after it is read: one epoch, few images, tiny networks of the same
library, and random weights in a file where the page says `pretrained` (tests download nothing).
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch

from tests.site.page_blocks import lines
from understudy.cli import main
from understudy.comparison.jobs import count, forking
from understudy.config.recipe import Network, Recipe
from understudy.deployment.speed import latency

CHOOSES_JOBS = "docs/own_folder.md"
"""Page whose comparison trains as many runs at once as it chooses; `docs/scale.md` says how many.
"""
IMAGES = 40
"""Training images of a run on those that come with Understudy; other folders are small anyway."""
THIN = {"widths": [4, 4, 6, 8]}
"""Options of the networks of the papers, which keep their name and depth."""
QUICK = {"compare": ("--no-doctor",), "distill": ("--no-doctor",), "doctor": ("--short",)}
"""Command → flag: the doctor has tests of its own, and would take most of the time here."""
FEW = {"lshfm": {"hashes": 64}, "letkd": {"words": 16, "subclasses": 1, "dims": 8}}
"""Method → hyper-parameters of a moment."""


def shortened(recipe: Recipe) -> Recipe:
    """Return a recipe that trains within a second."""
    training = recipe.training
    training = replace(
        training,
        epochs=1,
        drop_last=False,
        batch=20,
        warmup_epochs=0.0,
        milestones=(),
        lr=0.01,
    )
    data = replace(recipe.data, workers=0, size=capped(recipe.data.size))
    if recipe.data.source == "fashion":
        data = replace(data, images=IMAGES, labels=data.labels and IMAGES // 2)
    methods = {
        name: {**keys, **FEW.get(keys.get("method", name), {})}
        for name, keys in recipe.methods.items()
    }
    return replace(
        recipe,
        training=training,
        data=data,
        methods=methods,
        student=tiny(recipe.student),
        teacher=tiny(recipe.teacher),
    )


def tiny(network: Network) -> Network:
    """Return a small network of the same library."""
    library, _, name = network.name.rpartition(":")
    if library in ("timm", "torchvision") and recipe_detects(name):
        return network
    if library in ("timm", "torchvision") and not name.startswith("test_"):
        small = "test_resnet" if name in ("resnet50", "resnet101") else "test_efficientnet"
        name, size = f"timm:{small}", capped(network.size)
        return replace(network, name=name, size=size, weights=stored(network.weights, small))
    if library:
        return network
    options = dict(network.options)
    if "backbone" in options:
        options = {**options, "backbone": "resnet18", "min_size": 64, "max_size": 96}
        options.pop("backbone_weights", None)
        options |= {"rpn_post_nms_top_n_test": 50, "box_batch_size_per_image": 16}
    return replace(network, options={**THIN, **options} if name.startswith("resnet") else options)


def capped(size: Any) -> Any:
    """Return a side of at most 48 pixels; `auto` and nothing as they are."""
    return min(size, 48) if isinstance(size, int) else size


def recipe_detects(name: str) -> bool:
    """Whether a network of torchvision is a detector."""
    return name.startswith(("fasterrcnn", "retinanet", "fcos", "ssd"))


def stored(weights: str, name: str) -> str:
    """Return a file of random weights for 1000 classes where published ones are named."""
    if weights != "pretrained":
        return weights
    file = Path("pretrained", f"{name}.pt").absolute()
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        torch.save(timm.create_model(name).state_dict(), file)
    return str(file)


def shell(code: str, words: dict[str, str]) -> None:
    """Run every line: commands of Understudy in this process, others in one of their own."""
    for line in lines(code):
        replaced = [words.get(word, word) for word in line]
        print("$", *replaced, file=sys.stderr)
        if replaced[0] == "understudy":
            main([*replaced[1:], *QUICK.get(replaced[1], ())])
        else:
            subprocess.run(replaced, check=True)


def quick_measurements() -> None:
    """Time each network by a few calls: how exactly is no matter here."""
    latency._SECONDS, latency._ROUNDS = 0.0, 3


def one_run_at_a_time() -> None:
    """Let a comparison train its runs in this process, unless the page says `--jobs`.

    A process from which others are forked imports torch and timm for longer than they train.
    """
    count._by_cores = lambda needs: 1
    forking.load_ahead = lambda: None


def run(content: dict[str, Any]) -> None:
    """Run all blocks of a page."""
    quick_measurements()
    if content["page"] != CHOOSES_JOBS:
        one_run_at_a_time()
    load = Recipe.load
    Recipe.load = lambda *words: shortened(load(*words))  # type: ignore[method-assign]
    namespace = {"__name__": "__main__"}
    for block in content["blocks"]:
        print(f"# {sum(os.times()[:4]):.1f} s:", block["code"].partition("\n")[0], file=sys.stderr)
        with Path("times").open("a", encoding="utf-8") as times:
            times.write(f"{sum(os.times()[:4]):.1f} {block['code'].splitlines()[0]}\n")
        if block["kind"] == "shell":
            shell(block["code"], content["words"])
        elif block["kind"] == "file":
            text = block["code"]
            for word, value in content["words"].items():
                text = text.replace(word, value) if word.isupper() else text
            Path(block["file"]).write_text(text, encoding="utf-8")
        else:
            exec(compile(block["code"], content["page"], "exec"), namespace)


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
