"""Find the run directory that weights belong to. Imports no torch."""

from pathlib import Path

_WEIGHTS = (".", "best", "last", "student.safetensors", "best/student.safetensors")
"""Weights of a run, as seen from its directory."""


def run_of(weights: str) -> Path | None:
    """Return the directory of the run whose student some weights are; None of other weights.

    Args:
        weights: The run directory, its folder `best` or `last`, or a file of weights in one.
    """
    place = Path(weights)
    for folder in (place, place.parent, place.parent.parent):
        if weights and (folder / "recipe.yaml").is_file():
            return folder if place.relative_to(folder).as_posix() in _WEIGHTS else None
    return None
