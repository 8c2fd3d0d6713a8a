"""What a teaching detector finds in measured images, in one file beside its bank of maps."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import final

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors.torch import load, save

from understudy.tasks import Outputs
from understudy.training.checked_file import read_checked, write_checked


@final
class StoredOutputs:
    """A teacher's outputs on the images of a split: tensors as safetensors, in a checked file.

    Args:
        folder: Folder of the teacher's bank.
        depends_on: All that the outputs depend on, in words.
    """

    def __init__(self, folder: Path, depends_on: str) -> None:
        name = sha256(depends_on.encode()).hexdigest()[:16]
        self.path = folder / f"outputs-{name}.bin"

    def or_computed(self, compute: Callable[[], Outputs], accelerator: Accelerator) -> Outputs:
        """Return the stored outputs; without any, or where they are damaged, compute and store.

        Every process has them in the end, and all compute or none.
        """
        main = accelerator.is_main_process
        stored = [self._read() if main else None]
        if accelerator.num_processes > 1:
            broadcast_object_list(stored)
        if stored[0] is not None:
            return stored[0]
        outputs = compute()
        if main:
            payload = save({name: x.contiguous() for name, x in outputs.items()})
            write_checked(self.path, payload, key="bank.path")
        return outputs

    def _read(self) -> Outputs | None:
        if not self.path.is_file():
            return None
        payload = read_checked(self.path)
        return None if payload is None else load(payload)
