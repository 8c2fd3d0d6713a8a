"""Weights from disk, read without running any code, and their digest.

Names in a file need not be those of the network. What wrappers and training frameworks put before
them is found by comparing both: the part of the file that has most of the network's names, the
first of equals. So `module.encoder_q.` of MoCo v1 and v2, `module.base_encoder.` of MoCo v3 and
`backbone.` of DINO are read as they are; of DINO's two networks, the teacher. Other spellings
(DINOv2, DINOv3) are left to timm, for its networks.
"""

import hashlib
import pickle
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from understudy.errors import NetworkError

_HOLDERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_STUDENT = "student.module."
"""What stands before the student's names among all that a run trains."""


def load(
    module: nn.Module, path: str | Path, *, classifier: str = "", reset_classifier: bool = False
) -> None:
    """Fill a module with the weights of a file or of a run.

    Args:
        module: The plain network, without taps.
        path: `.safetensors`; a state dict saved by torch, perhaps inside a checkpoint and with
            something before its names; a run directory (its `student.safetensors`); or its folder
            `last`, where an embedding layer is not folded into the classifier.
        classifier: Path of the classifier, for the message if its classes differ.
        reset_classifier: Leave the classifier as it is if the file has none, or of other classes.

    Raises:
        NetworkError: No such file, pickled code in it, or tensors that do not fit.
    """
    own = module.state_dict()
    state = _headless(_translated(_stripped(read(path), own), module), module)
    # Files of before 2018 do not count batches; nothing but norms without momentum reads the count.
    state = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")} | state
    if reset_classifier and classifier:
        for key in (f"{classifier}.weight", f"{classifier}.bias"):
            if key in own and (key not in state or state[key].shape != own[key].shape):
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
    """The state dict in a file, run directory, or folder of checkpoints.

    Raises:
        NetworkError: No such file, or one that cannot be read without running code from it.
    """
    file = Path(path)
    if file.is_dir():
        student, checkpoint = file / "student.safetensors", file / "state.ckpt"
        file = checkpoint if checkpoint.is_file() else student
    if not file.is_file():
        raise NetworkError(f"There are no weights at {file}; check the path.")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with torch.serialization.safe_globals([Namespace]):  # the flags of a training script
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
    """The dictionary of tensors inside a checkpoint; inside a run's own, the student's."""
    if isinstance(content, dict) and isinstance(content.get("trainable"), dict):
        own = content["trainable"].items()
        return {k.removeprefix(_STUDENT): v for k, v in own if k.startswith(_STUDENT)}
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
    """The part of a state dict that is the module's, without what stands before its names."""
    if set(state) & set(own):
        return state
    found = Counter(
        ".".join(parts[:start]) + "."
        for parts in (key.split(".") for key in state)
        for start in range(1, len(parts))
        if ".".join(parts[start:]) in own
    )
    prefix, names = max(found.items(), key=lambda item: item[1], default=("", 0))
    if 2 * names < len(own):
        return state  # a few equal names say nothing
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _translated(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The names and forms that timm gives to what others have published of its networks."""
    file = sys.modules.get(type(module).__module__)
    translate: Callable[..., dict[str, Tensor]] | None = getattr(file, "checkpoint_filter_fn", None)
    own = module.state_dict()
    fits = all(key in state and state[key].shape == own[key].shape for key in own)
    if fits or translate is None:
        return state
    try:
        return translate(dict(state), module)
    except Exception:  # of another architecture, which is what the mismatch will say
        return state


def _headless(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Without what the file has where a network of timm was built without its classifier."""
    heads = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    known = dict(module.named_modules())
    gone = tuple(f"{path}." for path in heads if isinstance(known.get(path), nn.Identity))
    return {key: value for key, value in state.items() if not key.startswith(gone)}


def _of(own: dict[str, Tensor], path: str) -> list[str]:
    return [key for key in own if key.startswith(f"{path}.")]


def _mismatch(state: dict[str, Tensor], own: dict[str, Tensor], classifier: str) -> str:
    """What is wrong, nearest cause first; nothing if all fits."""
    weight = f"{classifier}.weight"
    if weight in state and weight in own and len(state[weight]) != len(own[weight]):
        return (
            f"their classifier has {len(state[weight])} classes, {len(own[weight])} were asked "
            "for. Use weights trained for these classes."
        )
    if classifier and {k for k in own if k not in state} == set(_of(own, classifier)):
        return (
            "they hold no classifier, as self-supervised ones do. Build the network without one, "
            "by `options: {num_classes: 0}` for timm."
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
