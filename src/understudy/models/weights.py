"""Weights from disk, read without running any code, and their digest."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from understudy.errors import NetworkError

_HOLDERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def load(
    module: nn.Module, path: str | Path, *, classifier: str = "", new_classifier: bool = False
) -> None:
    """Fill a module with the weights of a file or of a run directory.

    Args:
        module: The plain network, without taps.
        path: `.safetensors`; a state dict saved by torch, perhaps inside a checkpoint and with the
            prefixes of DataParallel and compile; or a run directory (its `student.safetensors`).
        classifier: Path of the classifier, for the message if its classes differ.
        new_classifier: Leave the classifier as it is if the file's has other classes.

    Raises:
        NetworkError: No such file, pickled code in it, or tensors that do not fit.
    """
    state = read(path)
    own = module.state_dict()
    if not set(state) & set(own):
        state = _stripped(state, own)
    # Files of before 2018 do not count batches; nothing but norms without momentum reads the count.
    state = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")} | state
    if new_classifier and classifier:
        for key in (f"{classifier}.weight", f"{classifier}.bias"):
            if key in state and key in own and state[key].shape != own[key].shape:
                state[key] = own[key]
    problem = _mismatch(state, own, classifier)
    if problem:
        raise NetworkError(f"The weights in {path} do not fit {type(module).__name__}: {problem}")
    module.load_state_dict(state)


def count_classes(module: nn.Module, path: str | Path, classifier: str) -> int | None:
    """How many classes the weights for a module are of; None if they hold no such classifier.

    Raises:
        NetworkError: As for `read`.
    """
    weight = _stripped(read(path), module.state_dict()).get(f"{classifier}.weight")
    return None if weight is None else len(weight)


def read(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file or run directory.

    Raises:
        NetworkError: No such file, or one that cannot be read without running code from it.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "student.safetensors"
    if not file.is_file():
        raise NetworkError(f"There are no weights at {file}; check the path.")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(
            f"{file} holds pickled objects, and reading it would run code from the file. If you "
            "trust it, convert it once, where it can be loaded: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        ) from error
    except Exception as error:
        raise NetworkError(f"{file} is not a file of weights: {error}") from error
    return _state_dict(content, file)


def digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a module's state dict, as hex."""
    result = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()


def _state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    """The dictionary of tensors inside a checkpoint."""
    for key in _HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise NetworkError(f"{file} holds no state dict but {type(content).__name__}.")
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise NetworkError(
            f"{file} holds a dictionary of {', '.join(map(str, list(content)[:5]))}."
        )
    return dict(content)


def _stripped(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys without the prefixes that wrappers add, as far as it takes to meet the module's own."""
    while not set(state) & set(own):
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _mismatch(state: dict[str, Tensor], own: dict[str, Tensor], classifier: str) -> str:
    """What is wrong, nearest cause first; nothing if all fits."""
    weight = f"{classifier}.weight"
    if weight in state and weight in own and len(state[weight]) != len(own[weight]):
        return (
            f"their classifier has {len(state[weight])} classes, {len(own[weight])} were asked "
            "for. Use weights trained for these classes."
        )
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    sizes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another size": sizes}
    found = [f"{len(v)} {k} ({', '.join(v[:3])}…)" for k, v in parts.items() if v]
    return "; ".join(found) + ". It is probably another architecture." if found else ""
