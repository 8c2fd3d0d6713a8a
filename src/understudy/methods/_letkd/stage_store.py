"""File of the finished stages of a measurement, with everything the measurement depends on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from understudy import files
from understudy.errors import BankError

_TOLERANCE = 0.02
"""Relative difference of features up to which the teacher counts as the same: other hardware or
precision stays below it, another teacher does not."""


@final
class StageStore:
    """Tensors of the finished stages, by name; each stage is written before the next one begins.

    Args:
        path: The file; if it exists, its tensors are loaded.
        made_of: Everything that the measurement depends on.
        probe: Features of the first images, which identify the teacher.

    Raises:
        BankError: The file belongs to another measurement, or is damaged.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any], probe: Tensor) -> None:
        self.path, self._made_of = path, dict(made_of)
        self.tensors: dict[str, Tensor] = {}
        if path.is_file():
            try:
                self._check_settings()
                self.tensors = dict(load_file(path))
            except SafetensorError as error:
                raise BankError(f"{path} is damaged; remove it to measure again.") from error
            self._check_teacher(probe)
        self.tensors["probe"] = probe

    def put(self, **tensors: Tensor) -> None:
        """Add finished tensors and write the file atomically."""
        self.tensors |= {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        # Renaming is atomic: after a crash the file is either the old or the new one.
        partial = self.path.with_suffix(".partial")
        partial.write_bytes(save(self.tensors, {"made_of": files.as_json(self._made_of)}))
        partial.replace(self.path)

    def _check_settings(self) -> None:
        with safe_open(self.path, "pt") as file:
            stored = json.loads((file.metadata() or {}).get("made_of", "{}"))
        for key, value in self._made_of.items():
            if stored.get(key) != value:
                raise BankError(
                    f"{self.path} was measured with {key} {stored.get(key)}, but {value} is asked "
                    "for; name another folder by `keep`, or remove the file."
                )

    def _check_teacher(self, probe: Tensor) -> None:
        stored = self.tensors["probe"]
        same = stored.shape == probe.shape
        error = float((stored - probe).norm() / stored.norm().clamp_min(1e-12)) if same else 1.0
        if error > _TOLERANCE:
            raise BankError(
                f"{self.path} was measured on another teacher, other images or another order of "
                f"them: features of the first images differ by {error:.0%}; name another folder by "
                "`keep`, or remove the file."
            )
