"""Batch normalisation over too few images: small batches, many parts of a step, a last small batch.

Of a batch of n images, normalisation in training takes mean and variance, and the running
statistics of evaluation follow them. Below 8 images the student of training and that of evaluation
differ visibly (Wu & He, Group Normalization, ECCV 2018: fig. 5); a last batch of an epoch of one,
two or three images is what the evaluation after it sees most of.
"""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.data import Loader
from understudy.words import counted

SHORT, OF_METHODS, SECONDS = True, False, 0.1

CHECK = "tiny_batches"

LEAST = 8
"""Images for each normalisation."""

LEAST_LAST = 4
"""Images of the last batch of an epoch."""


def check(examined: Examined) -> Iterator[Finding]:
    """Find parts of steps that are too small for the student's batch normalisation."""
    student, loader = examined.experiment.distiller.student, examined.experiment.train
    if not _normalises(student) or examined.task.truth == "objects":
        return
    images, parts = min(loader.batch, len(loader.labels)), loader.accumulate
    if images // parts < LEAST:
        each = f", each in {parts} parts" if parts > 1 else ""
        yield Finding(
            CHECK,
            "warning",
            f"The student normalises over {counted(images // parts, 'image')} (batches of "
            f"{images}{each}): below {LEAST}, its statistics in training and in evaluation differ.",
            _larger(loader),
            "" if len(loader.labels) >= LEAST else "Use more images, or a network without it.",
        )
        return
    last = len(loader.labels) % loader.batch
    if last // parts < LEAST_LAST and _has_last(loader):
        yield Finding(
            CHECK,
            "warning",
            f"The last batch of an epoch has {counted(last, 'image')}"
            f"{f' in {parts} parts' * (parts > 1)} ({len(loader.labels):,} images in batches of "
            f"{loader.batch}): the student normalises over these right before it is evaluated.",
            {"training.drop_last": True},
        )


def _larger(loader: Loader) -> dict[str, int | bool]:
    """Return fewer parts of a step, or else a larger batch, with which no part is too small."""
    images = len(loader.labels)
    if images < LEAST:
        return {}
    batch = max(LEAST, min(loader.batch, images))
    fix: dict[str, int | bool] = {}
    if batch != loader.batch:
        fix["training.batch"] = batch
    if loader.accumulate > 1:
        fix["training.accumulate"] = batch // LEAST
    parts = batch // LEAST if loader.accumulate > 1 else 1
    if 0 < images % batch < LEAST_LAST * parts:
        fix["training.drop_last"] = True
    return fix


def _has_last(loader: Loader) -> bool:
    """Return True if an epoch ends with a batch that is smaller than the others."""
    filled_up = loader.labelled_share is not None
    return not filled_up and len(loader) > len(loader.labels) // loader.batch


def _normalises(student: nn.Module) -> bool:
    """Return True if a batch normalisation of the network follows the batches."""
    return any(
        isinstance(module, _BatchNorm) and module.track_running_stats
        for module in student.modules()
    )
