"""Loads weights from disk without running code from the file, and computes their digest.

Names in a file may have a prefix that wrappers and training frameworks add. It is found by
comparing the names with those of the network: the prefix under which most of the network's names
are, the first of equals. So files of MoCo v1 and v2 (`module.encoder_q.`), MoCo v3
(`module.base_encoder.`) and DINO (`backbone.`) load without conversion; of DINO's two networks the
teacher is loaded. Other spellings (DINOv2, DINOv3) are converted by timm, for its networks.
"""

import hashlib
import json
import pickle
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from understudy.errors import NetworkError

_HOLDERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_OPEN_MMLAB = (
    *("bbox_head.", "roi_head.", "rpn_head.", "decode_head.", "mask_head."),
    *("head.fc.", "head.layers."),
)
"""Prefixes of open-mmlab's networks, whose other layers have the prefix `backbone.`."""
_STUDENT = "student.module."
"""Prefix of the student's names in a checkpoint of a run, which holds all that is trained."""


def load(
    module: nn.Module, path: str | Path, *, classifier: str = "", reset_classifier: bool = False
) -> None:
    """Load the weights of a file or run directory into a module.

    Args:
        module: The plain network, without taps.
        path: `.safetensors`; a state dict saved by torch, perhaps inside a checkpoint and with a
            prefix before its names; a run directory (its `student.safetensors`); or its folder
            `last`, where an embedding layer is not folded into the classifier.
        classifier: Path of the classifier, for the message if its classes differ.
        reset_classifier: Leave the module's classifier unchanged if the file has none, or one of
            other classes.

    Raises:
        NetworkError: No such file, pickled code in it, or tensors that do not fit.
    """
    current = module.state_dict()
    if packed := [k for k, v in current.items() if not isinstance(v, Tensor) or v.is_quantized]:
        raise NetworkError(
            f"The weights in {path} cannot be loaded into {type(module).__name__}, whose layers "
            f"are quantised ({packed[0]}): let the function that builds it load them, and give "
            "'own' as weights."
        )
    stored = read(path)
    state = _without_prefix(stored, current)
    state = _without_classifier(_converted_by_timm(state, module), module)
    # Files from before 2018 do not count batches; only norms without momentum read the count.
    state = {k: v for k, v in current.items() if k.endswith("num_batches_tracked")} | state
    if reset_classifier and classifier:
        for key in (f"{classifier}.weight", f"{classifier}.bias"):
            if key in current and (key not in state or state[key].shape != current[key].shape):
                state[key] = current[key]
    problem = _other_numbers(state, current) or _mismatch(state, current, classifier, stored)
    if problem:
        raise NetworkError(f"The weights in {path} do not fit {type(module).__name__}: {problem}")
    module.load_state_dict(state)


def count_classes(module: nn.Module, path: str | Path, classifier: str) -> int | None:
    """Return the number of classes of a module's weights in a file; None without the classifier.

    Raises:
        NetworkError: As for `read`.
    """
    weight = read_for(module, path).get(f"{classifier}.weight")
    return None if weight is None else len(weight)


def read_for(module: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Read a state dict, without a prefix before the names of a module; errors as for `read`."""
    return _without_prefix(read(path), module.state_dict())


def read(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file, run directory, or folder of checkpoints.

    Raises:
        NetworkError: No such file, or one that cannot be read without running code from it.
    """
    file = Path(path)
    if file.is_dir():
        student, checkpoint = file / "student.safetensors", file / "state.ckpt"
        file = checkpoint if checkpoint.is_file() else student
    if not file.is_file():
        raise NetworkError(f"There are no weights at {file}; check the path.")
    with _readable(file):
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with torch.serialization.safe_globals([Namespace]):  # flags of a training script
            content = torch.load(file, map_location="cpu", weights_only=True)
    return _state_dict(content, file)


def class_names(path: Path) -> tuple[str, ...]:
    """Return the class names in a run directory or a student's file; empty for other weights.

    Raises:
        NetworkError: The file cannot be read.
    """
    file = path / "student.safetensors" if path.name and path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return ()
    with _readable(file), safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get("classes", "[]")
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NetworkError(
            f"The class names in {file} are {text[:60]!r}, which is no list of names; write the "
            "file again."
        )
    return tuple(names)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Say what is wrong with a file of weights that cannot be read.

    Raises:
        NetworkError: It cannot.
    """
    if cause := _no_weights(file):
        raise NetworkError(f"{file} is not a file of weights: {cause}.")
    try:
        yield
    except pickle.UnpicklingError as error:
        raise NetworkError(
            f"{file} holds pickled objects, and reading it would run code from the file. If you "
            "trust it, convert it once, where it can be loaded: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors'), with the "
            "state dict of the loaded model or checkpoint."
        ) from error
    except Exception as error:
        if _is_cut(file):
            raise NetworkError(
                f"{file} is incomplete: its end is missing; download or copy it again."
            ) from error
        raise NetworkError(
            f"{file} is not a file of weights: {str(error).rstrip('.')}. Give one that torch.save "
            "or safetensors wrote."
        ) from error


def _no_weights(file: Path) -> str:
    """Return what a file is by its first bytes, if that is something else; "" if it may fit."""
    with file.open("rb") as content:
        start = content.read(512)
    text = start.lstrip().lower()
    if not start:
        return "it is empty; download or copy it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps of a failed download; download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; get the file itself by `git lfs pull`"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        return "it is compressed; unpack it"
    # A header of 8 bytes gives the length of the JSON that follows.
    if file.suffix != ".safetensors" and start[8:10] == b'{"':
        return "it is in the format of safetensors; give it the suffix .safetensors"
    if file.suffix != ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80")):
        return "it does not begin as one that torch.save wrote; check which file it is"
    if not start.startswith(b"PK\x03\x04"):
        return ""
    if file.suffix == ".safetensors":
        return "it was saved by torch.save; give it the suffix .pth"
    return _no_weights_in_zip(file)


def _no_weights_in_zip(file: Path) -> str:
    """Return what a zip archive is if torch.save did not write it; "" if it did, or it is cut."""
    if not is_zipfile(file):
        return ""
    with ZipFile(file) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return "it holds a TorchScript module; save the state dict of the module it was made from"
    if any(name.endswith("data.pkl") for name in names):
        return ""
    first = f" (of {names[0]}, …)" if names else ""
    return f"it is an archive{first} that torch.save did not write; unpack or convert it"


def _is_cut(file: Path) -> bool:
    """Return True if a file starts as one of weights, but ends too early."""
    with file.open("rb") as content:
        start = content.read(10)
    if file.suffix == ".safetensors":
        return len(start) < 10 or start[8:10] == b'{"'
    return start.startswith(b"PK\x03\x04") and not is_zipfile(file)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of a module's state dict, as hex."""
    result = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        _add(result, name, value)
    return result.hexdigest()


def _add(result: "hashlib._Hash", name: str, value: Any) -> None:
    """Add an entry of a state dict to a digest; those of quantised layers are no plain tensors."""
    if isinstance(value, tuple):
        for position, inner in enumerate(value):
            _add(result, f"{name}.{position}", inner)
        return
    if not isinstance(value, Tensor):
        result.update(f"{name} {value}\n".encode())
        return
    tensor = (value.dequantize() if value.is_quantized else value).detach().cpu().contiguous()
    result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    result.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())


def _state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the dictionary of tensors inside a checkpoint; in a run's checkpoint the student's."""
    if isinstance(content, dict) and isinstance(content.get("trainable"), dict):
        trained = content["trainable"].items()
        return {k.removeprefix(_STUDENT): v for k, v in trained if k.startswith(_STUDENT)}
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


def _without_prefix(state: dict[str, Tensor], current: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a state dict that are the module's, without a common prefix."""
    if 2 * len(set(state) & set(current)) >= len(current):
        return state
    prefixes = Counter(
        ".".join(parts[:start]) + "."
        for parts in (key.split(".") for key in state)
        for start in range(1, len(parts))
        if ".".join(parts[start:]) in current
    )
    prefix, names = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
    if 2 * names < len(current):
        return state  # names such as `0.weight` are equal by chance
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _converted_by_timm(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Convert weights that others published of a network of timm to timm's names and shapes."""
    file = sys.modules.get(type(module).__module__)
    convert: Callable[..., dict[str, Tensor]] | None = getattr(file, "checkpoint_filter_fn", None)
    current = module.state_dict()
    fits = all(key in state and state[key].shape == current[key].shape for key in current)
    if fits or convert is None:
        return state
    try:
        return convert(dict(state), module)
    except Exception:  # weights of another architecture: `_mismatch` describes the difference
        return state


def _without_classifier(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Drop the file's classifier if a network of timm was built without one."""
    heads = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    modules = dict(module.named_modules())
    dropped = tuple(f"{path}." for path in heads if isinstance(modules.get(path), nn.Identity))
    return {key: value for key, value in state.items() if not key.startswith(dropped)}


def _other_numbers(state: dict[str, Tensor], current: dict[str, Tensor]) -> str:
    """Describe weights that are no numbers as the network's are; "" if there are none."""
    for key, weight in current.items():
        saved = state.get(key, weight)
        if saved.is_meta or saved.layout != weight.layout:
            kind = "has no values" if saved.is_meta else "is sparse"
            return f"{key} {kind}. Save the weights as ordinary tensors, with values."
        if weight.is_floating_point() and not saved.is_floating_point():
            kind = str(saved.dtype).removeprefix("torch.")
            return (
                f"{key} is {kind}, as in quantised networks, where the network has real numbers. "
                "Use weights that were saved before they were quantised or converted."
            )
        # A mask of the network's own may hold infinity.
        wrong = saved.isnan() if bool(weight.isinf().any()) else ~saved.isfinite()
        if saved.is_floating_point() and wrong.any():
            kind = "NaN" if saved.isnan().any() else "infinity"
            return (
                f"{key} holds {kind}: the training that wrote it diverged, or its numbers were "
                "converted to a format too small for them. Use earlier weights."
            )
    return ""


def _mismatch(
    state: dict[str, Tensor],
    current: dict[str, Tensor],
    classifier: str,
    stored: Collection[str],
) -> str:
    """Describe what does not fit, the likeliest cause first; "" if all fits."""
    weight = f"{classifier}.weight"
    if weight in state and weight in current and len(state[weight]) != len(current[weight]):
        return (
            f"their classifier has {len(state[weight])} classes, {len(current[weight])} were asked "
            "for. Use weights trained for these classes."
        )
    missing, unexpected = current.keys() - state.keys(), state.keys() - current.keys()
    theirs = [key for key in stored if key.startswith(_OPEN_MMLAB) and key not in current]
    if missing and theirs and any(key.startswith(("backbone.", "neck.")) for key in stored):
        return (
            f"{min(theirs)} is a name of open-mmlab (mmdetection, mmpretrain), whose networks have "
            "other layers. Use weights of torchvision or timm, or a function of your own that "
            "builds the network (path/to/file.py:factory)."
        )
    if classifier and missing == {key for key in current if key.startswith(f"{classifier}.")}:
        return (
            "they hold no classifier, as self-supervised ones do. Build the network without one, "
            "by `options: {num_classes: 0}` for timm."
        )
    sizes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(current[k].shape)}"
        for k in current
        if k in state and state[k].shape != current[k].shape
    ]
    groups = {
        "missing": sorted(missing),
        "unexpected": sorted(unexpected),
        "of another size": sizes,
    }
    parts = [f"{len(v)} {k} ({', '.join(v[:3])}…)" for k, v in groups.items() if v]
    return "; ".join(parts) + ". It is probably another architecture." if parts else ""
