"""Devices of this machine by name: a name without a device is refused, never replaced."""

import torch

from understudy.errors import RecipeError, suggestion


def find_device(name: str | None) -> torch.device:
    """Return the device of a name, such as `cpu`, `cuda:1` or `mps`; None: a GPU, else the CPU.

    A GPU is one of NVIDIA or AMD (`cuda`), or that of a Mac with an Apple processor (`mps`).

    Raises:
        RecipeError: This machine has no such device; names those that it has.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else _present()[-1])
    present = _present()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    # Without a number, it is the current one of its kind; with 0, the only one of a kind without.
    known = [*present, *{each.partition(":")[0] for each in present}]
    if device is None or str(device).removesuffix(":0") not in known:
        raise RecipeError(
            f"There is no device {name!r}{suggestion(name, known)}; this machine has: "
            f"{', '.join(present)}{'' if len(present) > 1 else ' (PyTorch sees no GPU)'}."
        )
    return device


def _present() -> list[str]:
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{i}" for i in gpus), *mps]
