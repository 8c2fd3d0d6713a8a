"""Set up a run: its experiment built, on its device, and behind its banks."""

import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

from accelerate import Accelerator
from accelerate.utils import gather_object

from understudy.bank import Bank, RecordsDropped, Resident
from understudy.bank.map_replay import MapReplay
from understudy.bank.replay import Replay
from understudy.config.recipe import Recipe
from understudy.experiment import bank_attach, build
from understudy.experiment.build import Experiment
from understudy.experiment.images import Images
from understudy.experiment.stored_outputs import StoredOutputs
from understudy.training import hardware
from understudy.training.devices import ComputeSettings, accelerator, processes, resolve
from understudy.training.threads import ThreadChoice, choose

LOGGER = logging.getLogger("understudy")

SPLITS: tuple[Literal["validation"], Literal["test"]] = ("validation", "test")


@final
@dataclass(frozen=True)
class Setup:
    """An experiment on its device, behind the banks that its recipe names.

    Attributes:
        experiment: Everything the recipe names.
        accelerator: Devices and processes.
        settings: Resolved compute settings.
        replays: Name of a teacher → what reads and fills its bank of the training images; a teacher
            without a bank has none.
        measured_replays: Split → the same, for the teachers' outputs on validation or test images.
    """

    experiment: Experiment
    accelerator: Accelerator
    settings: ComputeSettings
    replays: dict[str, Replay | MapReplay]
    measured_replays: dict[str, dict[str, Replay | StoredOutputs]]

    def take_teacher_seconds(self) -> float | None:
        """Return seconds in the teachers since the last call; None without a bank to fill."""
        if not self.replays:
            return None
        seconds = sum(replay.seconds for replay in self.replays.values())
        for replay in self.replays.values():
            replay.seconds = 0.0
        return seconds

    def residents(self) -> dict[str, Resident]:
        """Return the complete banks copied to the GPU, where steps are captured, by teacher."""
        residents = {
            name: self._resident(replay.bank)
            for name, replay in self.replays.items()
            if isinstance(replay, Replay)  # steps of detectors are not captured
        }
        return {name: resident for name, resident in residents.items() if resident}

    def _resident(self, bank: Bank) -> Resident | None:
        with suppress(RecordsDropped):
            if bank.filled() == bank.contract.records:
                return Resident(bank, self.accelerator.device)
        LOGGER.warning(
            f"{bank.place} is not complete, so the teacher runs in every step; to be without it, "
            "fill the bank first by `understudy bank build`, or set training.graphs to false."
        )
        return None

    def environment(self) -> dict[str, Any]:
        """Return the machine, the settings, and what the images and the teacher are."""
        process = {"rank": self.accelerator.process_index, "pid": os.getpid()}
        return (
            hardware.describe()
            | asdict(self.settings)
            | {
                "processes": gather_object([process]),
                "classes": self.experiment.classes,
                "splits": self.experiment.images.counts(),
                "skipped": self.experiment.skipped,
                "digests": self.experiment.digests,
                "view_size": self.experiment.train.views.size,
            }
        )


def set_up(
    recipe: Recipe,
    device: str | None,
    *,
    folder: Path,
    images: Images | None = None,
    threads: ThreadChoice = None,
    threads_before: int | None = None,
) -> Setup:
    """Build a recipe, move it to its device, and put its banks in front of the teachers.

    Args:
        recipe: Names everything.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        folder: Where trackers write.
        images: Images of the recipe, if they are read already.
        threads: Threads of the CPU.
        threads_before: Those that the run began with, if it is continued.

    Raises:
        UnderstudyError: Whatever the recipe names is missing, or does not fit together.
    """
    process, training = processes(device), recipe.training
    experiment = build.experiment(
        recipe, rank=process.process_index, world=process.num_processes, images=images
    )
    recipe, distiller = experiment.recipe, experiment.distiller
    devices = accelerator(
        training, device, student=distiller.student, trackers=training.trackers, folder=folder
    )
    on_cpu = devices.device.type == "cpu"
    count = choose(threads, distiller.student, before=threads_before) if on_cpu else None
    settings = resolve(training, distiller, devices.device, threads=count)
    # Before methods measure the teacher: the outputs they get may be stored for training.
    settings.apply(distiller)
    with devices.main_process_first():  # which makes the bank, if there is none
        replays = bank_attach.attach(experiment, recipe)
        measured: dict[str, dict[str, Replay | StoredOutputs]] = {
            split: bank_attach.open_measured_replays(experiment, recipe, split) for split in SPLITS
        }
    return Setup(experiment, devices, settings, replays, measured)
