"""Directories as runs and comparisons leave them, with made-up but consistent numbers."""

import json
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from understudy.comparison.statistics import verdict
from understudy.diagnostics.directions import bit_agreement, of_student, of_teacher

CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat"]
CLASSES += ["sandal", "shirt", "sneaker", "bag", "ankle boot"]
LIFT = {"control": 0.0, "kd": 7.2, "lshfm": 9.1, "pefd": 8.3, "nd": 0.2, "letkd": -2.5}
RECIPE = """\
name: demo
student: {name: resnet8}
teacher: {name: resnet26, weights: runs/teacher}
training: {epochs: 30, batch: 64, lr: 0.05}
seed: 0
"""


def diagnosed(*, scale: float = 1.0, dim: int = 16, projects: bool = False) -> dict[str, Any]:
    """What a run keeps for its pictures, measured of made-up features of 200 images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 5
    teacher = torch.rand(200, 16, generator=generator) + labels[:, None] * torch.eye(5, 16)[labels]
    noise = torch.rand(200, dim, generator=generator)
    student = scale * (teacher + 0.3 * noise if dim == 16 else noise)
    weight = torch.randn(500, 16, generator=generator)
    cosines = [0.25 if dim == 16 else None, 0.875]
    entry = {"method": "pefd", "feature": "penultimate", "cka": [0.5, 0.75], "cosine": cosines}
    return {
        "images": 200,
        "student": of_student(student, teacher, labels),
        "teacher": of_teacher(teacher, labels),
        "bits": bit_agreement(student, teacher, weight, torch.zeros(500), None)
        if dim == 16
        else None,
        "projectors": [entry | {"zeros": [0.0, 0.25]}] if projects else [],
        "templates": None,
    }


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_run(
    path: Path,
    *,
    final: float = 78.0,
    epochs: int = 30,
    fidelity: bool = True,
    angles: bool = True,
    finished: bool = True,
    classes: int = 10,
    seed: int = 0,
    diagnostics: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write one run directory and return its evaluation."""
    noise = random.Random(f"{path.name} {final} {seed}")
    lines, last = [], {}
    for epoch in range(1, epochs + 1):
        share = 1 - math.exp(-5 * epoch / epochs)
        last = {
            "metrics": {"top1": final * share + noise.gauss(0, 0.3), "top5": 95.0, "loss": 0.9},
            "fidelity": {
                "agreement": final / 95 * share,
                "cosine": 0.3 + final / 130 * share if angles else None,
                "norm_ratio": 0.4 + final / 140 * share if angles else None,
                "cka": final / 90 * share,
                "kl": 2.0 - final / 45 * share,
            }
            if fidelity
            else None,
        }
        evaluated = last if epoch % 2 == 0 or epoch == epochs else dict.fromkeys(last)
        task = 2.3 * (1.05 - share) * 70 / final
        losses = {"task": task, "kd": 3 * task, "total": 4 * task + noise.random() * 0.05}
        steps = {"epoch": epoch, "step": 157 * epoch, "seconds": 8.1, "lr": 0.05}
        lines.append(
            json.dumps(steps | {"images_per_second": 1234.0, "losses": losses} | evaluated)
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    versions = {"machine": "2 × CPU cores", "torch": "2.11.0", "understudy": "0.1.0"}
    write_json(path / "environment.json", versions)
    spread = [max(0.0, min(100.0, final + noise.gauss(0, 5))) for _ in range(classes)]
    evaluation = last | {"per_class": spread, "parameters": 78_042}
    names = CLASSES[:classes] + [f"kind {i}" for i in range(len(CLASSES), classes)]
    evaluation |= {"classes": names, "seconds": 8.1 * epochs, "memory_mb": 812.4}
    if finished:
        write_json(path / "evaluation.json", evaluation)
    if diagnostics:
        write_json(path / "diagnostics.json", diagnostics)
    return evaluation


def write_comparison(
    root: Path,
    *,
    arms: tuple[str, ...] = tuple(LIFT),
    seeds: int = 3,
    classes: list[str] = CLASSES,
    **options: Any,
) -> dict[str, Any]:
    """Write a comparison directory with all its runs and return the content of its JSON."""
    done = {
        arm: [
            write_run(
                root / arm / f"seed{seed}",
                final=72 + LIFT[arm] + 0.4 * seed * (-1) ** len(arm),
                classes=len(classes),
                seed=seed,
                **options,
            )
            for seed in range(seeds)
        ]
        for arm in arms
    }
    tops = {arm: [run["metrics"]["top1"] for run in runs] for arm, runs in done.items()}
    content = {
        "name": "demo/kd_resnet26_resnet8",
        "task": "classification",
        "metric": "top1",
        "recipe_digest": "0123456789ab",
        "machine": "2 × CPU cores, 8 GB",
        "created": "2026-05-04T12:30:00+00:00",
        "seconds": 4374.0,
        "classes": classes,
        "teacher": {
            "name": "resnet26",
            "metrics": {"top1": 90.03, "top5": 99.5},
            "per_class": [90.0] * len(classes),
            "parameters": 1_310_720,
        },
        "arms": [
            {
                "name": arm,
                "methods": {} if arm == "control" else {arm: {"weight": 1.0}},
                "seeds": list(range(seeds)),
                "runs": [f"{arm}/seed{seed}" for seed in range(seeds)],
                "metrics": {"top1": tops[arm], "top5": [95.0] * seeds},
                "per_class": [run["per_class"] for run in runs],
                "fidelity": {
                    key: [run["fidelity"][key] for run in runs] for key in runs[0]["fidelity"]
                }
                if runs[0]["fidelity"]
                else None,
                "cost": {
                    "seconds": [243.0 + seed for seed in range(seeds)],
                    "memory_mb": [812.4] * seeds,
                    "parameters": 78_042,
                    "train_parameters": 78_042 if arm in ("control", "kd") else 94_680,
                },
                "verdict": None
                if arm == "control"
                else asdict(verdict(tops[arm], tops["control"], 90.03, name=arm, metric="top1")),
            }
            for arm, runs in done.items()
        ],
    }
    write_json(root / "comparison.json", content)
    return content
