"""Checkpoints of a run: the newest one, and the one before in case that gets damaged."""

import io
from pathlib import Path
from typing import Any

import torch

from understudy.errors import RunError
from understudy.files import write_error
from understudy.training.checked_file import read_checked, write_checked


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `folder/state.ckpt`, and keep the one before as `folder/previous.ckpt`.

    Raises:
        RunError: As for `write_checked`.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    current, previous = folder / "state.ckpt", folder / "previous.ckpt"
    # Kept: should the new file get damaged, training can continue from the one before.
    try:
        if current.is_file():
            current.replace(previous)
    except OSError as error:
        raise write_error(error, previous, len(payload)) from error
    write_checked(current, payload)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint of a folder, on the CPU; None if none was written.

    Raises:
        RunError: It is damaged; says which one is still intact.
    """
    current, previous = folder / "state.ckpt", folder / "previous.ckpt"
    path = current if current.is_file() else previous
    if not path.is_file():
        return None
    state = _read(path)
    if state is not None:
        return state
    previous_intact = path == current and previous.is_file() and _read(previous) is not None
    remedy = (
        "delete it to continue from previous.ckpt beside it, which is intact"
        if previous_intact
        else "no intact checkpoint is left, so delete both to train this run again from its start"
    )
    raise RunError(f"{path} is damaged (its checksum does not match); {remedy}.")


def _read(path: Path) -> dict[str, Any] | None:
    """Return the state in a file; None if its checksum does not match."""
    payload = read_checked(path)
    if payload is None:
        return None
    # Tensors and plain values alone: loading a file must not run code.
    state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    return state
