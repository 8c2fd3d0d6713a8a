"""Worker processes that train the jobs of a comparison, several at once.

Each worker has one pipe to the process that hands out the jobs. A worker that is killed, or whose
parent is, therefore leaves nothing locked, and the other side notices it at once.
"""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import final

from understudy import files
from understudy.comparison.arms import Job
from understudy.comparison.jobs import forking
from understudy.comparison.jobs.schedule import Failure, Outcome, Schedule
from understudy.comparison.jobs.table import Event, JobsTable
from understudy.comparison.jobs.worker_program import Stopped, WorkerSetup, work
from understudy.errors import Interrupted, UnderstudyError
from understudy.training.signals import stop_signals

_WAIT = 0.2
"""Seconds after which the parent looks for signals, and for runs that others have left."""


def train_at_once(agenda: Schedule, setups: Sequence[WorkerSetup], table: JobsTable) -> None:
    """Train all jobs, as many at once as there are setups, each in a process of its own.

    Raises:
        UnderstudyError: As for `Schedule.end`; the runs under way are saved first.
        Interrupted: A signal arrived; the runs under way were saved. A second one ends them at
            once.
    """
    pool = _Pool(agenda, setups, table)
    with stop_signals() as received:
        try:
            pool.run(received)
        except BaseException:
            pool.kill()
            raise
    pool.end()
    if pool.fatal:
        raise pool.fatal
    if received:
        raise Interrupted(f"Stopped by {received[0]}; every run is saved: {files.CONTINUE}.")


@final
class _Pool:
    """The workers of a comparison, and the loop that hands out its jobs.

    Attributes:
        fatal: Error that ends the comparison.
    """

    def __init__(self, agenda: Schedule, setups: Sequence[WorkerSetup], table: JobsTable) -> None:
        self.fatal: UnderstudyError | None = None
        self._agenda, self._setups, self._table = agenda, setups, table
        self._workers: list[_Worker | None] = [None] * len(setups)

    def run(self, received: Sequence[str]) -> None:
        """Hand out jobs until none is left, or a signal or a fatal error ends it."""
        while True:
            stopping = bool(received or self.fatal)
            if stopping:
                self._ask_to_stop()
            else:
                self._hand_out()
            if not self._busy and (stopping or not self._agenda.waits):
                return
            self._listen()
            self._table.refresh()

    def end(self) -> None:
        """Let all workers end; none is at work."""
        self._ask_to_stop()
        for worker in filter(None, self._workers):
            worker.process.join()

    def kill(self) -> None:
        """End all workers at once."""
        for worker in filter(None, self._workers):
            worker.process.kill()
            worker.process.join()

    @property
    def _busy(self) -> bool:
        return any(worker and worker.job for worker in self._workers)

    def _ask_to_stop(self) -> None:
        for worker in filter(None, self._workers):
            worker.ask_to_stop()

    def _hand_out(self) -> None:
        for place, setup in enumerate(self._setups):
            worker = self._workers[place]
            if worker and worker.job:
                continue
            job = self._agenda.next()
            if job is None:
                return
            if job.run.finished:
                self._table.finished(job)
                self._agenda.end(job, "finished")
                continue
            if worker is None:
                worker = self._workers[place] = _Worker(setup)
            self._table.begin(job)
            worker.hand(job)

    def _listen(self) -> None:
        """Wait a little for messages of the workers, and take them."""
        # Not a class is asked for: pipes of Windows are of another one.
        by_pipe: dict[object, int] = {
            worker.pipe: place for place, worker in enumerate(self._workers) if worker
        }
        if not by_pipe:
            time.sleep(_WAIT)
        for pipe in wait([worker.pipe for worker in self._workers if worker], timeout=_WAIT):
            self._take(by_pipe[pipe])

    def _take(self, place: int) -> None:
        worker = self._workers[place]
        assert worker is not None
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(place, worker)
            return
        job = worker.job
        if isinstance(message, Event):
            self._table.take(job, message)
            return
        worker.job = None
        if isinstance(message, Stopped) and not worker.stopping:
            message = Failure("Stopped", "Its process was told to stop; its state is saved.")
        if job and not isinstance(message, Stopped):
            self._end(job, message)

    def _bury(self, place: int, worker: "_Worker") -> None:
        """Note that a worker has died; another one takes its place when there is a job for it."""
        self._workers[place] = None
        worker.process.join()
        if worker.job and not worker.stopping:
            self._end(worker.job, Failure("Crash", _how_it_died(worker.process.exitcode)))

    def _end(self, job: Job, outcome: Outcome) -> None:
        try:
            self._table.end(job)
            self._agenda.end(job, outcome)
        except UnderstudyError as error:
            self.fatal = self.fatal or error


def _how_it_died(status: int | None) -> str:
    if status is not None and status < 0:
        name = _signal(-status)
        if name == "SIGKILL":
            return (
                "Its process was killed by SIGKILL, as the system does when memory runs out: give "
                "fewer --jobs if it did."
            )
        return f"Its process was ended by {name}."
    return f"Its process ended with the status {status}."


def _signal(number: int) -> str:
    """Return the name of a signal; its number where the system gives it none."""
    try:
        return signal.Signals(number).name
    except ValueError:  # those of real time but the first and last; all but six on Windows
        return f"signal {number}"


@final
class _Worker:
    """One worker, seen by its parent.

    Attributes:
        job: What it is at work on.
        stopping: True once it was asked to stop.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        context = forking.context()
        self.pipe, theirs = context.Pipe()
        self.job: Job | None = None
        self.stopping = False
        # No daemon: it has children itself where a loader has workers.
        self.process = context.Process(target=work, args=(theirs, setup))  # type: ignore[attr-defined]
        with forking.without_main():
            self.process.start()
        theirs.close()

    def hand(self, job: Job) -> None:
        """Give it a job; one that died meanwhile is noticed when its pipe is read."""
        self.job = job
        with suppress(OSError):
            self.pipe.send(job)

    def ask_to_stop(self) -> None:
        """Let it save its run and end."""
        if not self.stopping:
            self.stopping = True
            with suppress(OSError):
                self.pipe.send(None)
