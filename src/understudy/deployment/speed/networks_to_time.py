"""The networks whose size and latency are shown together: teacher, control and students of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.comparison.arms import CONTROL
from understudy.config.image_size import sides
from understudy.deployment.run_companions import control_of, teachers_of
from understudy.deployment.saved_student import SavedStudent, open_student
from understudy.deployment.speed.latency import Candidate
from understudy.errors import UnderstudyError
from understudy.experiment.run_directory import Run
from understudy.models.base import Wrapped
from understudy.models.library_modules import as_library_modules
from understudy.models.network import DEFAULT_SIZE, Network


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
        detector=saved.config.is_detector,
    )


def example_of(saved: SavedStudent) -> Tensor:
    """Return an image of noise as a student takes it."""
    detector, steps = saved.config.detector, saved.config.preprocessing
    if detector is None:
        return _noise(steps.channels, *sides(steps.size or DEFAULT_SIZE))
    own = detector["fixed_size"] or detector["min_size"]
    return _noise(3, int(own[0])).clamp(0, 1)


def _candidate_of_network(name: str, network: Wrapped) -> Candidate:
    if isinstance(network, Network):
        image = _noise(network.input.channels, *network.example_size)
        # In the form of an opened student: the same network is then known to be the same.
        module = as_library_modules(network.plain(), network.example_size)
        return Candidate(name, network.name, module, image)
    module = network.plain()
    transform: Any = module.get_submodule("transform")
    own = getattr(transform, "fixed_size", None) or transform.min_size
    image = _noise(3, int(own[0])).clamp(0, 1)
    return Candidate(name, network.name, module, image, detector=True)


def _noise(channels: int, *sides: int) -> Tensor:
    height, width = (*sides, *sides)[:2]
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))


def beside(run: Run, *, trust: bool) -> tuple[list[Candidate], list[str]]:
    """Return teachers and control of a run, and why one of them is missing."""
    control = control_of(run)
    return candidates(run, {CONTROL: control} if control else {}, trust=trust)


def candidates(
    run: Run, students: Mapping[str, Path], *, trust: bool
) -> tuple[list[Candidate], list[str]]:
    """Return all networks that can be opened, the teachers first, and why others cannot.

    Args:
        run: Its teachers are meant.
        students: Name → directory of every student.
        trust: Execute the Python files that the runs name for their networks.
    """
    opened, notes = list[Candidate](), list[str]()
    try:
        for name, teacher in teachers_of(run, trust=trust).items():
            opened.append(_candidate_of_network(name, teacher))
    except UnderstudyError as error:
        notes.append(f"teacher not measured: {error}")
    for name, folder in students.items():
        try:
            opened.append(candidate_of(name, open_student(folder, trust=trust)))
        except UnderstudyError as error:
            notes.append(f"{name} not measured: {error}")
    return opened, notes
