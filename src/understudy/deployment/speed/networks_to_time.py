"""The networks whose size and latency are shown together: teacher, control and students of runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy import tasks
from understudy.comparison.arms import CONTROL
from understudy.comparison.result import FILE as COMPARISON
from understudy.config.recipe import Network as NetworkKeys
from understudy.deployment.saved_student import SavedStudent, open_student
from understudy.deployment.speed.latency import Candidate
from understudy.errors import UnderstudyError
from understudy.experiment import networks
from understudy.experiment.run_directory import Run
from understudy.experiment.student_file.config import StudentConfig
from understudy.models.base import Wrapped
from understudy.models.library_modules import as_library_modules
from understudy.models.network import DEFAULT_SIZE, Network

EXPORT = "export"
"""Folder of a run that an export goes to, where none is named."""
_FILES = {"fp32": "student.onnx", "int8": "student_int8.onnx"}


def student_of(name: str, path: Path, *, trust: bool) -> Candidate:
    """Return the student of a run or an exported folder.

    Args:
        name: Role or arm.
        path: The folder.
        trust: Execute the Python file that the folder names for its network, if it does.

    Raises:
        UnderstudyError: The student cannot be opened.
    """
    saved = open_student(path, trust=trust)
    return candidate_of(name, saved)


def candidate_of(
    name: str, saved: SavedStudent, files: Mapping[str, Path] | None = None
) -> Candidate:
    """Return an opened student as a network to be measured."""
    return Candidate(
        name,
        saved.config.network.name,
        saved.module,
        example_of(saved),
        files or {},
        detector=saved.config.detector is not None,
    )


def example_of(saved: SavedStudent) -> Tensor:
    """Return an image of noise as a student takes it."""
    detector, steps = saved.config.detector, saved.config.preprocessing
    if detector is None:
        return _noise(steps.channels, steps.size or DEFAULT_SIZE)
    sides = detector["fixed_size"] or detector["min_size"]
    return _noise(3, int(sides[0])).clamp(0, 1)


def teacher_of(run: Run, *, trust: bool) -> Candidate | None:
    """Return the teacher of a run; None if it had none.

    Raises:
        UnderstudyError: It cannot be built any more.
    """
    stored = replace(run.recipe, trust=trust)
    if not (stored.teacher.name or stored.teacher.weights):
        return None
    networks.check_trust(replace(stored, student=NetworkKeys()), run.recipe, run.path)
    config, task = StudentConfig.read(run.path), tasks.find(stored.task, stored.training)
    size = config.preprocessing.crop or DEFAULT_SIZE
    network = networks.teacher(stored, config.classes, task, view_size=size)
    return None if network is None else _candidate_of_network("teacher", network)


def _candidate_of_network(name: str, network: Wrapped) -> Candidate:
    if isinstance(network, Network):
        height, width = network.example_size
        image = _noise(network.input.channels, height, width)
        # In the form of an opened student: the same network is then known to be the same.
        module = as_library_modules(network.plain(), height)
        return Candidate(name, network.name, module, image)
    module = network.plain()
    transform: Any = module.get_submodule("transform")
    sides = getattr(transform, "fixed_size", None) or transform.min_size
    image = _noise(3, int(sides[0])).clamp(0, 1)
    return Candidate(name, network.name, module, image, detector=True)


def control_of(run: Run) -> Path | None:
    """Return the run of the control of the same seed, if the run is part of a comparison."""
    root = run.path.resolve().parent.parent
    control = root / CONTROL / run.path.name
    is_control = run.path.resolve().parent.name == CONTROL
    return (
        control if (root / COMPARISON).is_file() and control.is_dir() and not is_control else None
    )


def _noise(channels: int, *sides: int) -> Tensor:
    height, width = (*sides, *sides)[:2]
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))


def beside(run: Run, *, trust: bool) -> tuple[list[Candidate], list[str]]:
    """Return teacher and control of a run, and why one of them is missing."""
    candidates, notes = list[Candidate](), list[str]()
    try:
        if teacher := teacher_of(run, trust=trust):
            candidates.append(teacher)
    except UnderstudyError as error:
        notes.append(f"teacher not measured: {error}")
    if control := control_of(run):
        try:
            candidates.append(student_of(CONTROL, control, trust=trust))
        except UnderstudyError as error:
            notes.append(f"control not measured: {error}")
    return candidates, notes


def files_of(folder: Path) -> dict[str, Path]:
    """Return precision → ONNX file of an exported folder; empty where there is none."""
    return {name: folder / file for name, file in _FILES.items() if (folder / file).is_file()}
