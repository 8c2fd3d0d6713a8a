"""Fresh processes that tests start, watch and end.

They are forked from one process that has loaded torch and its like, but nothing of the library:
otherwise each of them would compute for seconds before it begins.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch.distributed import TCPStore

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("torch", "torch._dynamo", "torch.distributed", "torch.utils.flop_counter"),
        *("torchvision", "torchvision.models.detection", "torchvision.transforms.v2", "timm"),
        *("accelerate", "jaxtyping", "safetensors.torch", "scipy.stats", "PIL.Image", "yaml"),
        *("docstring_parser", "jsonargparse", "rich.live", "rich.progress", "rich.table"),
        *("jinja2", "matplotlib.figure", "matplotlib.backends.backend_svg"),
    ]
)


def never_wait_for_the_disk() -> None:
    """Let `os.fsync` only check its file: processes die in tests, the machine does not."""

    def check(file: int | SupportsFileno) -> None:
        os.fstat(file if isinstance(file, int) else file.fileno())

    os.fsync = check


class SupportsFileno(Protocol):
    """An open file."""

    def fileno(self) -> int: ...


class Process(Protocol):
    """A process of this module, or of `subprocess`."""

    def poll(self) -> int | None: ...


class Fresh:
    """A process that runs a script, a module or a piece of code as `python` would.

    Args:
        words: As after `python`: `-W error` or nothing; a file, `-m` and a module, or `-c` and
            code; then its arguments.
        folder: Where it runs; default: where the tests do.
        environment: Variables besides those of the tests.
        terminal: Path of a terminal for its output, which `out` and `err` then do not hold.
    """

    def __init__(
        self,
        *words: str | Path,
        folder: Path | None = None,
        environment: Mapping[str, str] = {},
        terminal: str = "",
    ) -> None:
        self._said = tempfile.TemporaryDirectory(prefix="fresh")
        self._process = FORKS.Process(
            target=_run,
            args=(
                [str(word) for word in words],
                folder or Path.cwd(),
                {**os.environ, **environment},
                [terminal or f"{self._said.name}/{number}" for number in (1, 2)],
            ),
        )
        self._process.start()
        _STARTED.append(self)

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def out(self) -> str:
        """What it has written to its standard output so far."""
        return self._text("1")

    @property
    def err(self) -> str:
        """What it has written to its standard error so far."""
        return self._text("2")

    def poll(self) -> int | None:
        """Its exit status, negative after a signal; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def finish(self) -> str:
        """What it wrote to its standard output on its way to success."""
        assert self.wait() == 0, self.out + self.err
        return self.out

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()

    def _text(self, stream: str) -> str:
        file = Path(self._said.name, stream)
        return file.read_text(encoding="utf-8") if file.exists() else ""


_STARTED: list[Fresh] = []


@atexit.register
def _end_all() -> None:
    """Let no test that failed leave a process behind, for which Python would wait at its end."""
    for process in _STARTED:
        if process.poll() is None:
            process.kill()


def _run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], outputs: Sequence[str]
) -> None:
    never_wait_for_the_disk()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for stream, number, path in zip((sys.stdout, sys.stderr), (1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY), number)
        stream.reconfigure(line_buffering=True)
    if words[0] == "-W":
        warnings.simplefilter(words[1])  # type: ignore[arg-type]
        words = words[2:]
    kind, name = words[:2] if words[0] in ("-c", "-m") else ("", words[0])
    sys.argv = [kind or name, *words[2 if kind else 1 :]]
    sys.path.insert(0, str(Path(name).parent if not kind else folder))
    if kind == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(name, "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(name, run_name="__main__")


def command_line(*words: str | Path) -> Fresh:
    """The command line in a process of its own."""
    return Fresh("-m", "understudy", *words)


def ranks(count: int, *words: str | Path) -> list[Fresh]:
    """Some processes that train together, as `torchrun` would start them."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    _STORES.append(store)
    return [
        Fresh(
            *words,
            environment={
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
            },
        )
        for rank in range(count)
    ]


_STORES: list["TCPStore"] = []
"""Where processes meet: until the tests end."""


def until(condition: Callable[[], bool], process: Process) -> None:
    """Wait for what a process is about to do; whoever waits in vain meets the suite's timeout."""
    while not condition():
        assert process.poll() is None, "the process ended too early"
        time.sleep(0.005)
