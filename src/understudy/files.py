"""Files that are either whole or absent: atomic writes, and checkpoints that notice damage."""

import errno
import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from understudy.errors import RunError

_DIGEST_BYTES = 32


def write(path: Path, content: str | bytes) -> None:
    """Replace a file in one step; a crash or a full disk leaves the old content untouched.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _forget(partial)
        raise RunError(_reason(error, path, len(data))) from error


def free_bytes(path: Path) -> int:
    """What the disk has free on which `path` lies, or would lie."""
    whole = path.resolve()
    folder = next(place for place in (whole, *whole.parents) if place.is_dir())
    return shutil.disk_usage(folder).free


def _forget(partial: Path) -> None:
    try:
        partial.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is gone or read-only, which the error being raised says


def _reason(error: OSError, path: Path, size: int) -> str:
    kept = "what was saved before is intact"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full: {path} needs {size / 1e6:.1f} MB; {kept}. "
            "Free some space and continue with --resume."
        )
    return f"{path} cannot be written ({error.strerror}); {kept}. Choose another --out."


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `folder/state.ckpt`, keeping the one before as `folder/previous.ckpt`.

    Raises:
        RunError: As for `write`.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    current, previous = folder / "state.ckpt", folder / "previous.ckpt"
    try:
        if current.is_file():
            current.replace(previous)
    except OSError as error:
        raise RunError(_reason(error, previous, len(payload))) from error
    write(current, payload + hashlib.sha256(payload).digest())


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the newest checkpoint of a folder.

    Raises:
        RunError: There is none, or it is damaged; says what is still good.
    """
    current, previous = folder / "state.ckpt", folder / "previous.ckpt"
    path = current if current.is_file() else previous
    if not path.is_file():
        raise RunError(f"{folder} holds no checkpoint to continue from; start without --resume.")
    state = _read(path)
    if state is not None:
        return state
    good = path == current and previous.is_file() and _read(previous) is not None
    way_out = (
        "delete it to continue from previous.ckpt beside it, which is intact"
        if good
        else "no intact checkpoint is left, so start again without --resume"
    )
    raise RunError(f"{path} is damaged (its checksum does not match); {way_out}.")


def _read(path: Path) -> dict[str, Any] | None:
    data = path.read_bytes()
    payload, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    return state
