"""Label coverage: training images without a label, and how many labelled ones a batch holds."""

from collections.abc import Iterator

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.words import agreeing

SHORT, OF_METHODS, SECONDS = True, False, 0.1

_FEW = 8
"""Labelled images of a batch, on average, below which the loss on labels is noise."""

_SHARE = 0.25
"""Share of every batch that the fix draws from labelled images, unless that would be too few."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the images with a label with those without."""
    recipe, train = examined.recipe, examined.images.train
    if not examined.task.uses_labels:
        return
    known = int(train.labelled.sum())
    if known < len(train):
        yield Finding(
            "labels",
            "note",
            f"{known:,} of {len(train):,} training images {agreeing(known, 'has', 'have')} a "
            "label; the others serve the methods alone.",
        )
    test = examined.images.test
    if (tested := int(test.labelled.sum())) < len(test):
        yield Finding(
            "labels",
            "warning",
            f"{tested:,} of {len(test):,} {examined.images.measured} images "
            f"{agreeing(tested, 'has', 'have')} a label: the "
            "others are not measured.",
            advice="Give them labels, or remove them.",
        )
    batch, share = recipe.training.batch, known / len(train)
    # A control leaves images without a label out by itself.
    if (
        recipe.each_method
        and recipe.data.labelled_share is None
        and batch * share < min(_FEW, batch)
    ):
        yield Finding(
            "labels",
            "warning",
            f"A batch of {batch} holds {batch * share:.1f} labelled images on average, as "
            f"{100 * share:.1f} % of the training images have a label: the loss on labels is "
            "mostly noise.",
            fix={"data.labelled_share": max(_SHARE, round(_FEW / batch, 2))},
        )
