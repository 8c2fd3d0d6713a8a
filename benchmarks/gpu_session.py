"""A session of ten minutes on one GPU: a teacher, its students by several methods, and their speed.

    python -m benchmarks.gpu_session --data CIFAR100 [--out DIR] [--minutes 9.5] [--jobs 4]
    python -m benchmarks.gpu_session --rehearse --device cpu

Three parts, one after the other, each a command that the next start of the same session continues:

1. `teacher`: resnet32x4 by large batches.
2. `speed`: control and kd one after the other, then `--jobs` runs at once, and the steps per second
   of all of them together.
3. `students`: resnet32x4 → resnet8x4 by all methods, one seed after the other, as many as fit into
   the minutes. A seed begins only if one like the last would end in time. letkd has 256 words,
   since the published 4,096 take minutes to measure.

Written are `session.json` and the directory of the comparison. `--rehearse` does all of it in a
minute of one CPU core, on images shipped with Understudy and with tiny networks.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.comparison.compare import compare
from understudy.comparison.result import Comparison
from understudy.experiment.train import train
from understudy.files import as_json

METHODS = ("kd", "lshfm", "pefd", "kd+nd", "letkd")
SEEDS = (0, 1, 2, 3, 4)
TRAINING: Mapping[str, Any] = {"schedule": "cosine", "nesterov": True, "precision": "auto"}
TEACHER: Mapping[str, Any] = {
    "name": "teacher",
    "data": {"source": "cifar100", "augment": "crop_flip"},
    "student": "resnet32x4",
    "training": {
        **TRAINING,
        "epochs": 60,
        "batch": 256,
        "lr": 0.2,
        "warmup_epochs": 2,
        "evaluate_every": 10,
    },
}
STUDENTS: Mapping[str, Any] = {
    "name": "students",
    "data": {"source": "cifar100", "augment": "crop_flip"},
    "student": "resnet8x4",
    "teacher": "resnet32x4",
    "methods": {
        "kd": {},
        "lshfm": {},
        "pefd": {},
        "nd": {},
        "letkd": {"words": 256, "subclasses": 2},
    },
    "training": {**TRAINING, "epochs": 30, "batch": 64, "lr": 0.05, "evaluate_every": 10},
}
TINY = {"name": "resnet8x4", "options": {"widths": [8, 8, 16, 64]}, "size": 16}
REHEARSED: Mapping[str, Any] = {
    "data": {"source": "fashion", "size": 16, "augment": "crop_flip", "images": 200},
    "training.epochs": 1,
    "training.batch": 128,
    "training.warmup_epochs": 0,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the parts of a session, and print what each gave."""
    options = _parser().parse_args(arguments)
    started, out = time.monotonic(), options.out
    changes = dict(REHEARSED) if options.rehearse else {"data.root": options.data}
    students = changes | ({"student": TINY, "teacher": TINY} if options.rehearse else {})
    teacher = _teacher(changes | ({"student": TINY} if options.rehearse else {}), options)
    students |= {"teacher.weights": str(teacher)}
    session = {"speed": _speeds(students, options)}
    print(f"speed: {session['speed']}", flush=True)
    names = METHODS[:2] if options.rehearse else METHODS
    result = _students(students, names, options, started)
    session |= {"seconds": time.monotonic() - started, "comparison": result.to_dict()}
    (out / "session.json").write_text(as_json(session, indent=1))
    print(result.table())


def _teacher(changes: Mapping[str, Any], options: argparse.Namespace) -> Path:
    """Train the teacher, or continue it, and return its run directory."""
    folder: Path = options.out / "teacher"
    resume = (folder / "recipe.yaml").is_file()
    run = train(TEACHER, changes, out=folder, resume=resume, device=options.device, progress=True)
    print(f"teacher: {run.evaluation['metrics']} in {run.seconds:.0f} s", flush=True)
    return folder


def _speeds(changes: Mapping[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """Return the optimizer steps per second of all runs together, one alone and several at once."""
    speeds = {}
    for jobs in (1, options.jobs):
        seeds, out = range(jobs), options.out / f"speed{jobs}"
        fewer = {"training.epochs": 2, "name": "speed", "methods": {}}
        compared = compare(
            STUDENTS,
            {**changes, **fewer},
            methods=["kd"],
            seeds=[*seeds],
            out=out,
            device=options.device,
            jobs=jobs,
        )
        runs = [run for arm in ("control", "kd") for run in compared.runs(arm)]
        seconds = [run.evaluation["seconds"] for run in runs]
        steps = sum(run.history[-1]["step"] for run in runs)
        speeds[f"{jobs} at once"] = jobs * steps / sum(seconds)
    return speeds


def _students(
    changes: Mapping[str, Any],
    names: Sequence[str],
    options: argparse.Namespace,
    started: float,
) -> Comparison:
    """Compare the methods with one more seed at a time, and return the last result."""
    longest, result = 0.0, None
    for count in range(1, len(SEEDS) + 1):
        before = time.monotonic()
        if result is not None and before - started + longest > 60 * options.minutes:
            break
        result = compare(
            STUDENTS,
            changes,
            methods=names,
            seeds=SEEDS[:count],
            out=options.out / "students",
            device=options.device,
            jobs=options.jobs,
            progress=True,
        )
        longest = max(longest, time.monotonic() - before)
    assert result is not None
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_session", description=__doc__)
    parser.add_argument("--data", default="cifar100", help="folder of CIFAR-100")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_session"))
    parser.add_argument(
        "--minutes", type=float, default=9.5, help="no seed is begun that ends later"
    )
    parser.add_argument("--jobs", type=int, default=4, help="runs at once")
    parser.add_argument("--device", help="default: a GPU, or else the CPU")
    parser.add_argument("--rehearse", action="store_true", help="the same in a minute of a CPU")
    return parser


if __name__ == "__main__":
    main()
