"""Size and normalisation of the images, as each network will see them."""

from collections.abc import Iterator
from typing import Any

import torch

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.config.image_size import in_words, pixels
from understudy.config.recipe import key_of
from understudy.experiment.networks import called
from understudy.models.network import Network

SHORT, OF_METHODS, SECONDS = True, False, 0.5

CHECK = "network_inputs"

_LARGER = 1.5
"""Side of the student's images, as a multiple of the views, from which on it is worth saying."""

_FAR, _NARROW, _WIDE = 3.0, 0.1, 5.0
"""Mean, and least and largest deviation, of normalised values; those of photographs are near 0, 1.

Unnormalised values from 0 to 1 have a mean of about 0.45 and a deviation of about 0.27, of pictures
of little contrast 0.18; black drawings on white, and white ones on black, stay inside as well.
"""


def check(examined: Examined) -> Iterator[Finding]:
    """Say what all networks see; find a student that enlarges its images, and wrong statistics."""
    experiment, recipe = examined.experiment, examined.resolved
    view_size = experiment.train.views.size
    roles: dict[str, Any] = {"student": experiment.distiller.student}
    roles |= {key_of(x.name): x.teacher.network for x in experiment.distiller.distillations}
    images = examined.batches(1)[0].images
    for role, network in roles.items():
        if not isinstance(network, Network):
            continue
        size = network.input.size or view_size
        times = pixels(size) / pixels(view_size)
        yield Finding(
            CHECK,
            "note",
            f"The {called(role)} sees images of {in_words(size)} pixels (made of views of "
            f"{in_words(view_size)}), normalised by mean {_listed(network.input.mean)} and std "
            f"{_listed(network.input.std)}.",
        )
        enlarged = role == "student" and times >= _LARGER**2
        if enlarged and recipe.student.size is None:
            yield Finding(
                CHECK,
                "warning",
                f"The student enlarges the images of {in_words(view_size)} pixels to "
                f"{in_words(size)}, the size it was built for, and computes {times:.0f} times as "
                "much.",
                {"student.size": view_size},
            )
        yield from _statistics(role, network, images)


def _statistics(role: str, network: Network, images: torch.Tensor) -> Iterator[Finding]:
    """Find normalised values that no network is made for."""
    mean, std = network.get_buffer("_mean"), network.get_buffer("_std")
    values = (network.input.unit_range(images) - mean.to(images)) / std.to(images)
    # Within each channel: what is subtracted, or divided by, may differ between them.
    centre, spread = float(values.mean()), float(values.std(dim=(0, 2, 3)).mean())
    if abs(centre) <= _FAR * max(spread, 1.0) and _NARROW <= spread <= _WIDE:
        return
    of_bytes = max(network.input.mean) > 1
    scale = 255.0 if of_bytes else 1.0
    fix = {
        f"{role}.mean": [round(x / scale, 4) for x in network.input.mean],
        f"{role}.std": [round(x / scale, 4) for x in network.input.std],
    }
    own = "" if of_bytes else "its mean and std are for values from 0 to 1: check them."
    yield Finding(
        CHECK,
        "warning",
        f"Normalised, the images of the {called(role)} have the mean {centre:.2f} and the "
        f"standard deviation {spread:.3f}, not about 0 and 1"
        + (f": {role}.mean is for values from 0 to 255, and images are 0 to 1." * of_bytes or "."),
        fix if of_bytes else {},
        own.capitalize(),
    )


def _listed(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{x:.3g}' for x in values)})"
