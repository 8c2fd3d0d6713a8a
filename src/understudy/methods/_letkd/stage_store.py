"""What has been measured of a teacher so far, in one file that says what it was made of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from understudy.errors import BankError

_TOLERANCE = 0.02
"""Relative difference of features that other arithmetic explains, and another teacher does not."""


@final
class Ledger:
    """Finished stages of a measurement, by name; each is on disk before the next begins.

    Args:
        path: The file; what it holds is taken over.
        made_of: All that the measurement depends on.
        probe: Features of the first images, by which the teacher is known again.

    Raises:
        BankError: The file was made of something else, or is damaged.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any], probe: Tensor) -> None:
        self.path, self._made_of = path, dict(made_of)
        self.tensors: dict[str, Tensor] = {}
        if path.is_file():
            try:
                self._check()
                self.tensors = dict(load_file(path))
            except SafetensorError as error:
                raise BankError(f"{path} is damaged; remove it to measure again.") from error
            self._recognise(probe)
        self.tensors["probe"] = probe

    def put(self, **tensors: Tensor) -> None:
        """Add finished tensors, in one step that a crash leaves done or undone."""
        self.tensors |= {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        partial = self.path.with_suffix(".partial")
        partial.write_bytes(save(self.tensors, {"made_of": json.dumps(self._made_of)}))
        partial.replace(self.path)

    def _check(self) -> None:
        with safe_open(self.path, "pt") as file:
            found = json.loads((file.metadata() or {}).get("made_of", "{}"))
        for what, value in self._made_of.items():
            if found.get(what) != value:
                raise BankError(
                    f"{self.path} was measured with {what} {found.get(what)}, but {value} is asked "
                    "for; name another folder by `keep`, or remove the file."
                )

    def _recognise(self, probe: Tensor) -> None:
        stored = self.tensors["probe"]
        same = stored.shape == probe.shape
        error = float((stored - probe).norm() / stored.norm().clamp_min(1e-12)) if same else 1.0
        if error > _TOLERANCE:
            raise BankError(
                f"{self.path} was measured on another teacher, other images or another order of "
                f"them: features of the first images differ by {error:.0%}; name another folder by "
                "`keep`, or remove the file."
            )
