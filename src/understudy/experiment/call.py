"""The call that began a directory of several runs, which `--resume DIR` repeats. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from understudy import files
from understudy.config.json_form import Form
from understudy.experiment.callback import Callback
from understudy.experiment.run_directory import read_json

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer

FILE = "call.json"
"""File of a directory that says which function began it, with what."""

_CALL: Form = {"function": str, "arguments": {str: object}}


@final
@dataclass(frozen=True)
class Call:
    """What a directory was begun by.

    Attributes:
        function: Name of the public function, such as `compare`.
        arguments: Its arguments as plain data, without those that only choose how it is computed.
    """

    function: str
    arguments: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write the call into a directory, in place of an earlier one.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        from understudy.training.hardware import is_first_process  # loads torch, as training does

        if is_first_process():
            content = {"function": self.function, "arguments": dict(self.arguments)}
            files.write(folder / FILE, files.as_json(content, indent=1))


@final
class WrittenAtStart(Callback):
    """Writes a call when training begins, which locks the directory of the run before.

    Args:
        call: What to write.
        folder: Where to.
    """

    def __init__(self, call: Call, folder: Path) -> None:
        self._call, self._folder = call, folder

    def start(self, trainer: "Trainer", name: str) -> None:
        """Write the call."""
        self._call.write(self._folder)


def call_of(folder: Path) -> Call | None:
    """Return the call that began a directory; None if none is recorded.

    Raises:
        RunError: The file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    content = read_json(folder / FILE, _CALL, remedy="give the command that began it again")
    return Call(content["function"], content["arguments"])
