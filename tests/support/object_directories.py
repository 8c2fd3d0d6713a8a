"""Directories of detection and of multi-label recognition, measured of made-up answers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.support.report_directories import RECIPE, write_json
from understudy import tasks
from understudy.comparison.statistics import verdict
from understudy.data import Loader, ObjectViews
from understudy.data.sources import drawn_shapes
from understudy.diagnostics import detection, multilabel
from understudy.experiment.fidelity import evaluation
from understudy.tasks import Outputs

NOISE = {"teacher": 0.1, "control": 0.35, "nd": 0.2}
SOURCE = drawn_shapes.load("60", "test")


def loader() -> Loader:
    """The drawn test images, one after the other."""
    views = ObjectViews(SOURCE, augment="none", seed=0, jitter=0.0)
    return Loader(views, SOURCE.labels, batch=4, seed=0, shuffle=False)


def detected(noise: float, seed: int) -> Outputs:
    """As if by a detector: boxes that are moved, classes that are mixed up, and some out of air."""
    generator = torch.Generator().manual_seed(seed)
    batch = next(Loader.single_pass(_whole(), augmented=False))
    found = tasks.find("detection").collect({}, batch)
    count, boxes = len(found["true_boxes"]), found["true_boxes"]
    moved = boxes + 12 * noise * torch.randn(boxes.shape, generator=generator)
    mixed = torch.rand(count, generator=generator) < noise / 2
    classes = torch.where(mixed, (found["true_classes"] + 1) % 6, found["true_classes"])
    scores = (1 - noise * torch.rand(count, generator=generator) ** 2 * 1.6).clamp(0.05, 0.99)
    air = torch.rand(10, 4, generator=generator) * 40 + torch.tensor([0.0, 0, 40, 40])
    return found | {
        "boxes": torch.cat([moved, air]),
        "scores": torch.cat([scores, noise * torch.rand(10, generator=generator)]),
        "classes": torch.cat([classes, torch.randint(6, (10,), generator=generator)]),
        "image": torch.cat([found["true_image"], torch.arange(10)]),
    }


def recognised(noise: float, seed: int) -> Outputs:
    """As if by a network: logits with noise."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(SOURCE.labels.shape, generator=generator)
    logits = 4 * (SOURCE.labels - 0.5 + noise * drawn)
    index = torch.arange(len(SOURCE))
    return {"index": index, "labels": SOURCE.labels, "logits": logits, "penultimate": logits}


def _whole() -> Loader:
    views = ObjectViews(SOURCE, augment="none", seed=0, jitter=0.0)
    return Loader(views, SOURCE.labels, batch=len(SOURCE), seed=0, shuffle=False)


def write_run(path: Path, task: str, noise: float, seed: int) -> dict[str, Any]:
    """Write one run directory and return its evaluation."""
    answers, kind = (detected, detection) if task == "detection" else (recognised, multilabel)
    student, teacher = answers(noise, 1 + seed), answers(NOISE["teacher"], 0)
    found = tasks.find(task)
    evaluated, own = evaluation(found, student, {"": teacher}), found.measure(teacher)
    taught = {"name": "big", "metrics": own.metrics, "per_class": own.per_class}
    summary = asdict(evaluated) | {
        "teacher": taught | {"parameters": 43_000_000},
        "classes": list(SOURCE.classes),
        "parameters": 19_000_000,
        "train_parameters": 19_500_000,
        "seconds": 90.0,
        "memory_mb": 1476.0,
    }
    record = {"epoch": 1, "seconds": 90.0, "losses": {"total": 2.0}}
    record |= {"metrics": evaluated.metrics, "fidelity": evaluated.fidelity}
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (path / "recipe.yaml").write_text(RECIPE)
    write_json(path / "environment.json", {"machine": "2 × CPU cores"})
    write_json(path / "evaluation.json", summary)
    kept = {
        "scenes": kind.scenes(student, teacher, loader()),
        "precision": kind.precision(student, teacher),
    }
    write_json(path / "diagnostics.json", kept)
    return summary


def write_comparison(root: Path, task: str, seeds: int = 3) -> dict[str, Any]:
    """Write a comparison of one method with its control, and return the content of its JSON."""
    metric = tasks.find(task).headline
    done = {
        arm: [
            write_run(root / arm / f"seed{seed}", task, NOISE[arm], 10 * place + seed)
            for seed in range(seeds)
        ]
        for place, arm in enumerate(("control", "nd"))
    }
    teacher = done["control"][0]["teacher"]
    values = {arm: [run["metrics"][metric] for run in runs] for arm, runs in done.items()}
    judged = verdict(
        values["nd"], values["control"], teacher["metrics"][metric], name="nd", metric=metric
    )
    content = {
        "name": f"made-up {task}",
        "task": task,
        "metric": metric,
        "recipe_digest": "0123456789ab",
        "machine": "2 × CPU cores",
        "created": "2026-05-04T12:30:00+00:00",
        "seconds": 540.0,
        "classes": list(SOURCE.classes),
        "teacher": teacher,
        "arms": [
            {
                "name": arm,
                "methods": {} if arm == "control" else {arm: {}},
                "seeds": list(range(seeds)),
                "runs": [f"{arm}/seed{seed}" for seed in range(seeds)],
                "metrics": _over_seeds([run["metrics"] for run in runs]),
                "per_class": [run["per_class"] for run in runs],
                "fidelity": _over_seeds([run["fidelity"] for run in runs]),
                "cost": {
                    "seconds": [90.0] * seeds,
                    "memory_mb": [1476.0] * seeds,
                    "parameters": 19_000_000,
                    "train_parameters": 19_500_000,
                },
                "verdict": None if arm == "control" else asdict(judged),
            }
            for arm, runs in done.items()
        ],
    }
    write_json(root / "comparison.json", content)
    return content


def _over_seeds(parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [part[key] for part in parts] for key in parts[0]}
