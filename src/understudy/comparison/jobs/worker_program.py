"""The program of a worker process: trains the jobs that come through a pipe, and tells of them."""

import logging
import os
import queue
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, final

import torch

from understudy.comparison.arms import Job
from understudy.comparison.jobs.agenda import attempt
from understudy.comparison.jobs.forecast import share_done
from understudy.comparison.jobs.schedule import Outcome
from understudy.comparison.jobs.table import Ended, EpochEnded, Logged, Moved, Started
from understudy.errors import Interrupted
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes
from understudy.training.signals import ask_to_stop
from understudy.training.threads import ThreadChoice

LOGGER = logging.getLogger("understudy")


_OF_TORCHRUN = re.compile(
    r"(LOCAL_)?(RANK|WORLD_SIZE)$|(MASTER|GROUP|ROLE|TORCHELASTIC|TORCH_NCCL)_"
)
"""Variables by which torchrun makes processes a group."""


@final
@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is started with.

    Attributes:
        device: Name of a device, or None for the best one that the worker sees.
        threads: Threads of the CPU.
        environment: Variables of the worker's environment.
        level: Level of the messages that it passes on.
    """

    device: str | None
    threads: ThreadChoice
    environment: Mapping[str, str] = field(default_factory=dict)
    level: int = logging.WARNING

    def of_workers(self, jobs: int, gpus: Sequence[str]) -> "list[WorkerSetup]":
        """Return the setups of so many workers, each on one of the GPUs in turn, if there are any.

        Args:
            jobs: Number of workers.
            gpus: As `CUDA_VISIBLE_DEVICES` names them.
        """
        places: Sequence[str | None] = gpus or [None]
        return [self.on(places[place % len(places)]) for place in range(jobs)]

    def on(self, gpu: str | None) -> "WorkerSetup":
        """Return the setup of a worker in the environment of this process.

        Args:
            gpu: The GPU that the worker sees, as `CUDA_VISIBLE_DEVICES` names it; None for all.
        """
        own = {key: x for key, x in os.environ.items() if not _OF_TORCHRUN.match(key)}
        if gpu is not None:
            own["CUDA_VISIBLE_DEVICES"] = gpu
        device = self.device if gpu is None else "cuda"
        return replace(self, device=device, environment=own, level=LOGGER.getEffectiveLevel())


@final
@dataclass(frozen=True)
class Stopped:
    """A worker has saved its run and goes no further."""


def work(pipe: Connection, setup: WorkerSetup) -> None:
    """Train the jobs that come through a pipe: the whole life of a worker."""
    # The parent says when to stop; a key pressed in the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(setup.environment)
    parent = _Parent(pipe)
    LOGGER.handlers, LOGGER.propagate = [_Sender(parent)], False
    LOGGER.setLevel(setup.level)
    images = ImagesOfRecipes()
    threading.Thread(target=parent.listen, daemon=True).start()
    while (job := parent.jobs.get()) is not None:
        try:
            outcome: Outcome | Stopped = attempt(
                job,
                images,
                device=setup.device,
                threads=setup.threads,
                callback=_Sending(parent),
            )
        except Interrupted:
            outcome = Stopped()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # for the other workers on this GPU
        parent.done(outcome)


@final
class _Parent:
    """The process that hands out jobs, seen by a worker.

    Attributes:
        jobs: Jobs to do; None at the end.
    """

    def __init__(self, pipe: Connection) -> None:
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._pipe, self._lock = pipe, threading.Lock()
        self._at_work = False

    def listen(self) -> None:
        """Receive jobs; once the parent says so, or has ended, stop what is under way."""
        with suppress(EOFError, OSError):
            while (job := self._pipe.recv()) is not None:
                self._at_work = True
                self.jobs.put(job)
        self.jobs.put(None)
        # Only a run in training has something to save.
        if self._at_work and not ask_to_stop("SIGTERM"):
            os._exit(1)

    def send(self, message: object) -> None:
        """Pass on a message; a parent that has ended is noticed by `listen`."""
        with self._lock, suppress(OSError):
            self._pipe.send(message)

    def done(self, outcome: Outcome | Stopped) -> None:
        """Say what came of a job."""
        self._at_work = False
        self.send(outcome)


@final
class _Sending(Callback):
    """Passes the progress of a run on to the parent, a few times a second."""

    def __init__(self, parent: _Parent) -> None:
        self._parent, self._sent = parent, 0.0

    def start(self, trainer: Any, name: str) -> None:
        """Pass on that training begins."""
        self._parent.send(Started(share_done(trainer)))

    def step(self, trainer: Any) -> None:
        """Pass on how far it is."""
        if time.monotonic() - self._sent < 0.5:
            return
        position, self._sent = trainer.position, time.monotonic()
        rate = position.images / max(position.seconds, 1e-9)
        self._parent.send(Moved(share_done(trainer), position.epoch, rate))

    def epoch(self, record: dict[str, Any]) -> None:
        """Pass on the record of an epoch."""
        self._parent.send(EpochEnded(record))

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """Pass on the result."""
        self._parent.send(Ended(metric, evaluation))


@final
class _Sender(logging.Handler):
    """Passes messages of the logger on to the parent."""

    def __init__(self, parent: _Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        self._parent.send(
            Logged(record.levelno, record.getMessage(), getattr(record, "subject", None))
        )
