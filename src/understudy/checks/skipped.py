"""Images and objects that were left out or repaired when the data were read."""

from collections.abc import Iterator

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.experiment.images import skipped_sentence

SHORT, OF_METHODS, SECONDS = True, False, 0.1

_MANY = 0.02
"""Share of the images of which a warning is given; below it, the run says so itself."""


def check(examined: Examined) -> Iterator[Finding]:
    """Count what was left out."""
    images = examined.images
    if not images.skipped:
        return
    total = len(images.train) + sum(
        len(source) for source in {images.validation, images.test} if source is not None
    )
    share = len(images.skipped) / (total + len(images.skipped))
    yield Finding(
        "skipped",
        "warning" if share >= _MANY else "note",
        skipped_sentence(images.skipped),
        advice=f"That is {100 * share:.1f} % of them: open a few, and repair or remove them.",
    )
