"""Check an exported network on the test images of its run, or on random ones where these lack."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.deployment.export import run_images
from understudy.deployment.export.graph import Preparation
from understudy.deployment.export.onnx_export import Runner
from understudy.deployment.export.parity import Comparison, Decision, Parity
from understudy.deployment.export.quantise import CALIBRATION_IMAGES
from understudy.deployment.export.run_images import RunImages
from understudy.deployment.saved_student import SavedStudent
from understudy.deployment.speed.networks_to_time import example_of
from understudy.errors import NetworkError, UnderstudyError
from understudy.experiment.run_directory import Run

BATCH = 32
"""Images that are computed at once."""
_RANDOM = 64
"""Random images, where there are no others."""


@dataclass(frozen=True)
class Images:
    """Images on which a network is checked.

    Attributes:
        saved: The student.
        real: Test images of its run; None for random ones.
        reason: Why they are random; empty for real ones.
    """

    saved: SavedStudent
    real: RunImages | None
    reason: str = ""

    @property
    def name(self) -> str:
        """What they are."""
        return self.real.split if self.real else "random images"

    def inputs(self, preparation: Preparation) -> Iterator[Tensor]:
        """Yield what a graph takes: batches, and single pictures where it prepares them itself."""
        if preparation == "outside":
            yield from self._batches()
            return
        for picture in self.pictures():
            yield picture[None] if preparation == "inside" else picture[None].float() / 255

    def pictures(self) -> Iterator[Tensor]:
        """Yield whole images of uint8 `(3, height, width)`, one after the other."""
        if self.real:
            yield from self.real.pictures()
            return
        side = 2 * example_of(self.saved).shape[-1]
        for seed in range(_RANDOM):
            yield (smooth(3, side + seed, side, seed) * 255).byte()

    def _batches(self) -> Iterator[Tensor]:
        """Yield batches of images as the network takes them."""
        images = map(self.saved.preprocess, self.pictures())
        while batch := list(islice(images, BATCH)):
            yield torch.stack(batch)


@dataclass(frozen=True)
class Int8:
    """Accuracy of an int8 file beside fp32, on the same images.

    Attributes:
        metric: Name of the metric that ranks students; where the images have no labels, `agreement`
            with fp32, or `cosine` to it where the network gives vectors, both in percent.
        images: Number of the images.
        fp32: Its value in fp32.
        int8: Its value in int8.
        parity: Differences and changed decisions.
        calibration: Number of training images by which ranges were measured.
        kept: Layers that stayed in fp32.
    """

    metric: str
    images: int
    fp32: float
    int8: float
    parity: Parity
    calibration: int
    kept: list[str]

    @property
    def drop(self) -> float:
        """Points that int8 loses."""
        return self.fp32 - self.int8

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        return (
            f"{self.metric} {self.int8:.2f} in int8, {self.fp32:.2f} in fp32, on {self.images:,} "
            f"{self.parity.on}; {self.parity.changed:,} of {self.parity.decisions:,} decisions "
            "changed"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON has it."""
        return asdict(self) | {"drop": self.drop, "sentence": self.sentence}


def images_of(
    path: Path, saved: SavedStudent, overrides: Mapping[str, Any] | None, *, count: int | None
) -> Images:
    """Return the test images of a run, or random ones and the reason.

    Raises:
        UnderstudyError: `overrides` name images that cannot be used.
    """
    if not (path / "recipe.yaml").is_file():
        return Images(saved, None, f"{path} is no run directory, which would name test images")
    try:
        real = run_images.test_images(Run(path), overrides, count=count)
    except UnderstudyError as error:
        if overrides:
            raise
        return Images(saved, None, f"the test images of the run cannot be read: {error}")
    return Images(saved, real)


def calibration(path: Path, saved: SavedStudent, overrides: Mapping[str, Any] | None) -> Images:
    """Return training images of a run.

    Raises:
        UnderstudyError: There are none: int8 needs the ranges of real activations.
    """
    if not (path / "recipe.yaml").is_file():
        raise NetworkError(
            f"int8 is calibrated on training images, and {path} is no run directory, which would "
            "name them: export the run itself."
        )
    real = run_images.training_images(Run(path), overrides, count=CALIBRATION_IMAGES)
    return Images(saved, real)


def decision_of(saved: SavedStudent) -> Decision:
    """Return what a student decides of an image."""
    if saved.config.is_detector:
        return "objects"
    if saved.config.num_classes is None:
        return "vector"
    return "class" if saved.config.threshold is None else "classes"


@dataclass(frozen=True)
class Compared:
    """Difference of two networks, and the outputs of both on all images.

    Attributes:
        parity: The difference.
        reference: Outputs of the first, in order; empty for a detector.
        other: Outputs of the second.
    """

    parity: Parity
    reference: Tensor
    other: Tensor


@torch.inference_mode()
def compare(
    graph: Callable[[Tensor], Tensor],
    run: Runner,
    images: Images,
    preparation: Preparation,
    *,
    threshold: float = 0.0,
) -> Compared:
    """Compare a graph in torch with an exported file.

    Args:
        graph: The graph.
        run: Runs the file.
        images: Images on which they are compared.
        preparation: What the graph takes.
        threshold: Output from which a class of several counts as present.
    """
    comparison = Comparison(decision_of(images.saved), threshold=threshold)
    pairs = []
    for batch in images.inputs(preparation):
        reference, (other,) = graph(batch), run(batch)
        comparison.add(reference, other)
        pairs.append((reference, other))
    mine, its = (torch.cat(list(part)) for part in zip(*pairs, strict=True))
    return Compared(comparison.result(images.name), mine, its)


@torch.inference_mode()
def compare_detector(graph: nn.Module, run: Runner, images: Images) -> Compared:
    """Compare a detector in torch with an exported file, image by image."""
    comparison = Comparison("objects")
    for picture in images.pictures():
        image = images.saved.preprocess(picture)
        names = ("boxes", "labels", "scores")
        reference = dict(zip(names, graph(image), strict=True))
        comparison.add_detections(reference, dict(zip(names, run(image), strict=True)))
    return Compared(comparison.result(images.name), torch.empty(0), torch.empty(0))


def judged(compared: Compared, images: Images, *, count: int, kept: list[str]) -> Int8:
    """Return the accuracy of an int8 file beside fp32.

    Args:
        compared: The fp32 file and the int8 file.
        images: Images on which they were compared.
        count: Number of training images by which ranges were measured.
        kept: Layers that stayed in fp32.
    """
    parity, real = compared.parity, images.real
    values = [real.metric(x) if real else None for x in (compared.reference, compared.other)]
    fp32, int8 = values
    metric = real.task.headline if real else ""
    if fp32 is None or int8 is None:
        fp32 = 100.0
        if parity.decisions:
            metric, int8 = "agreement", 100 * (1 - parity.changed / parity.decisions)
        else:
            cosine = F.cosine_similarity(compared.reference, compared.other).mean()
            metric, int8 = "cosine", 100 * float(cosine)
    return Int8(metric, parity.images, fp32, int8, parity, count, kept)


def smooth(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Return an image of smooth noise with values in [0, 1]."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, channels, 8, 8), generator=draw)
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]
