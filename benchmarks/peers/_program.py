"""Run another project's unchanged training program, one optimizer step at a time.

The program keeps its own `main`, loader, loop, losses, meters and logging. It runs in a thread that
waits after every optimizer step until the next one is requested, so that it takes turns with other
training in the same process: only one thread runs at a time. While it starts, the modules of its
checkout hide other modules of the same name.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from pathlib import Path
from typing import final
from unittest.mock import patch

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class PeerError(Exception):
    """A peer's program ended, or did not reach its first step."""


class _Enough(BaseException):
    """Raised inside a program to end its thread."""


@final
class Program(Iterator[None]):
    """One optimizer step of a program for each item.

    Args:
        script: Script, as in `python SCRIPT ARGUMENTS`.
        arguments: Arguments of the script.
        modules: Folders to import from, in addition to the script's.
        folder: Working directory.
        repairs: Patches, in memory only, that let it run on a CPU with the installed torch.
        before: Function called when its modules can be imported, before it starts.
    """

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        *,
        modules: Sequence[Path],
        folder: Path,
        repairs: Sequence[AbstractContextManager[object]] = (),
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self._script, self._arguments, self._before = script, arguments, before
        self._modules, self._folder = (script.parent, *modules), folder
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended: BaseException | None = None
        self._closing = False
        self._kept = ExitStack()
        for repair in repairs:
            self._kept.enter_context(repair)
        self._sink = Path(os.devnull).open("w")  # noqa: SIM115  # closed with the program
        self._kept.callback(self._sink.close)
        hook = register_optimizer_step_post_hook(self._after_step)
        self._kept.callback(hook.remove)

    def __next__(self) -> None:
        if self._thread.ident is None:
            self._start()
        else:
            self._go_on()
        if self._ended is not None:
            raise PeerError(f"{self._script} ended: {self._ended!r}") from self._ended

    def close(self) -> None:
        """End the program, and undo the patches."""
        if self._thread.is_alive():
            self._closing = True
            self._go_on()
            self._thread.join()
        self._kept.close()

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (
            _importing(self._modules),
            _inside(self._folder),
            patch.object(sys, "argv", [str(self._script), *self._arguments]),
            patch.dict(os.environ),
        ):
            self._thread.start()
            self._go_on()

    def _go_on(self) -> None:
        with redirect_stdout(self._sink), redirect_stderr(self._sink):
            self._turn.release()
            self._done.acquire()

    def _run(self) -> None:
        self._turn.acquire()
        torch.set_num_threads(1)
        try:
            self._before()
            code = compile(self._script.read_text(encoding="utf-8"), self._script, "exec")
            exec(code, {"__name__": "__main__", "__file__": str(self._script)})
            self._ended = PeerError("all its epochs are over")
        except BaseException as error:  # raised again in the caller's thread
            self._ended = error
        self._done.release()

    def _after_step(self, *_: object) -> None:
        if threading.current_thread() is not self._thread:
            return
        self._done.release()
        self._turn.acquire()
        if self._closing:
            raise _Enough


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _importing(folders: Sequence[Path]) -> Iterator[None]:
    """Import from these folders first, and unload their modules at the end: peers share names."""
    names = {
        entry.stem
        for folder in folders
        for entry in folder.iterdir()
        if entry.suffix == ".py" or entry.is_dir()
    }
    hidden = {name: sys.modules.pop(name) for name in _loaded(names)}
    try:
        with patch.object(sys, "path", [*map(str, folders), *sys.path]):
            yield
    finally:
        for name in _loaded(names):
            del sys.modules[name]
        sys.modules.update(hidden)


def _loaded(names: set[str]) -> list[str]:
    return [module for module in sys.modules if module.partition(".")[0] in names]
