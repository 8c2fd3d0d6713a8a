"""Whether the images come as fast as a training step takes them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy import files
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.data import Source
from understudy.data.subset import evenly
from understudy.experiment.run_time import in_words, run_seconds
from understudy.training import hardware

SHORT, OF_METHODS, SECONDS = True, False, 6.5

_WORTH_SECONDS = 300.0
"""Time of a run below which a warning of the speed is not worth it."""

_GAIN = 1.3
"""How many times faster a run must become for a warning."""

_WAITS = 0.9
"""Share of a step in which its images are made, from which it waits for workers."""

_MOST_WORKERS = 16

_DECODED_TO = "runs/decoded"
"""Folder that is proposed for decoded images."""

_DECODED = 16
"""Images that are decoded to time it."""


@dataclass(frozen=True)
class Speed:
    """Times of a training step and of its parts.

    Attributes:
        step: Seconds of a step, its images included.
        images: Seconds in which the images of a step are made, by the present workers.
        decoding: Seconds of one core in which they are decoded.
        workers: Worker processes that make them.
        cores: Cores of this machine.
        threads: Those that compute the step; 0 on a GPU.
    """

    step: float
    images: float
    decoding: float
    workers: int
    cores: int
    threads: int

    @property
    def compute(self) -> float:
        """Seconds of a step without its images, at least: a step that waits for them hides it."""
        waits = self.images > _WAITS * self.step
        # With workers, images are made meanwhile.
        return self.step if self.workers and not waits else max(self.step - self.images, 0.0)

    @property
    def making(self) -> float:
        """Seconds of one core in which the images of a step are made."""
        return self.images * max(self.workers, 1)

    def step_with(self, workers: int, *, decoded: bool = False) -> float:
        """Predict the seconds of a step with other workers, or with images decoded before."""
        making = max(self.making - decoded * self.decoding, 0.1 * self.making)
        # Workers and the step share the cores of a CPU.
        all_cores = (making + self.threads * self.compute) / self.cores
        if not workers:
            return making + self.compute
        return max(making / min(workers, self.cores), self.compute, all_cores)


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the time in which images are made with that of a step."""
    train, trial = examined.images.train, examined.trial
    if train.pixels is not None or trial.step_seconds is None or trial.input_seconds is None:
        return
    recipe, settings = examined.resolved, examined.placed.settings
    decoding, decoded_bytes = _decoded(train)
    speed = Speed(
        step=trial.step_seconds,
        images=trial.input_seconds,
        decoding=recipe.training.batch * decoding,
        workers=recipe.data.workers,
        cores=hardware.cores(),
        threads=settings.threads if settings.device == "cpu" else 0,
    )
    yield Finding(
        "loading",
        "note",
        f"A step takes {1e3 * speed.step:,.0f} ms; its {recipe.training.batch} images are made in "
        f"{1e3 * speed.images:,.0f} ms by {_makers(speed)}.",
    )
    steps = len(examined.experiment.train)
    whole = run_seconds(recipe, examined.images, steps=steps, step_seconds=speed.step)
    space = decoded_bytes < files.free_bytes(Path(_DECODED_TO)) / 2
    fix, step = faster(speed, can_decode=space and not recipe.data.decoded)
    if fix and whole > _WORTH_SECONDS:
        yield Finding(
            "loading",
            "warning",
            f"Making the images takes {100 * min(speed.images / speed.step, 1):.0f} % of the time "
            f"of a step ({1e3 * speed.images:,.0f} of {1e3 * speed.step:,.0f} ms): the run takes "
            f"about {in_words(whole)}, and could take {in_words(whole * step / speed.step)}.",
            fix=fix,
        )


def faster(speed: Speed, *, can_decode: bool) -> tuple[dict[str, Any], float]:
    """Return the keys that make a step much faster, and its seconds then; no keys if none do.

    Workers come first, as they need no disk; then images that are decoded once.

    Args:
        speed: The present times.
        can_decode: Decoded images can be stored, and are not yet.
    """
    options: list[tuple[dict[str, Any], float]] = []
    most = min(speed.cores, _MOST_WORKERS)
    if most > speed.workers and speed.cores > 1:
        options.append(({"data.workers": most}, speed.step_with(most)))
    if can_decode:
        decoded = {"data.decoded": _DECODED_TO}
        options.append((decoded, speed.step_with(speed.workers, decoded=True)))
    worth = [option for option in options if speed.step > _GAIN * option[1]]
    # The first, unless another one is much faster still.
    best = min(worth, key=lambda option: option[1], default=({}, speed.step))
    return next((option for option in worth if option[1] < _GAIN * best[1]), best)


def _makers(speed: Speed) -> str:
    if not speed.workers:
        return "this process itself"
    return f"{speed.workers} worker process{'es' * (speed.workers != 1)}"


def _decoded(source: Source) -> tuple[float, int]:
    """Return the seconds in which one image is decoded, and the bytes of all; from some of them."""
    sample = evenly(len(source), _DECODED).tolist()
    began = time.perf_counter()
    images = [source.image(i) for i in sample]
    seconds = (time.perf_counter() - began) / len(sample)
    return seconds, sum(image.numel() for image in images) * len(source) // len(sample)
