"""Write the graph of a student as ONNX, int8 or a program of torch, and verify each file."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor, nn

from understudy import files
from understudy.deployment.export import checking, onnx_export, quantise, torch_export
from understudy.deployment.export.checking import Compared, Images, Int8
from understudy.deployment.export.graph import Detections, Graph, Preparation, Prepared
from understudy.deployment.export.onnx_export import Runner
from understudy.deployment.export.parity import Parity
from understudy.deployment.exported_folder import INT8, ONNX, PROGRAM
from understudy.deployment.saved_student import SavedStudent
from understudy.deployment.speed import networks_to_time
from understudy.errors import NetworkError
from understudy.files import PARTIAL


@dataclass(frozen=True)
class Options:
    """How a student is exported; see `export`."""

    preprocessing: Preparation = "outside"
    probabilities: bool = False
    any_size: bool = False
    opset: int | None = None


@final
@dataclass(frozen=True)
class Subject:
    """A student to export.

    Attributes:
        saved: The student.
        options: How it is exported.
        images: Images on which files are checked.
        folder: Folder to write.
    """

    saved: SavedStudent
    options: Options
    images: Images
    folder: Path

    @property
    def is_detector(self) -> bool:
        """True for a detector."""
        return self.saved.config.is_detector

    @property
    def takes_pictures(self) -> bool:
        """True if the graph prepares pictures of any size itself."""
        return self.options.preprocessing != "outside"

    @cached_property
    def graph(self) -> nn.Module:
        """The module that is exported."""
        return self._graph(self.options.preprocessing)

    @property
    def takes(self) -> str:
        """What the graph takes, and what is left to do before it, in a sentence."""
        if self.is_detector:
            return (
                "The graph takes one RGB picture of any size as float32 (3, height, width) with "
                "values from 0 to 1, and resizes and normalises it itself: only divide by 255 "
                "before."
            )
        if self.takes_pictures:
            values = "uint8" if self.options.preprocessing == "inside" else "float32 from 0 to 1"
            return (
                f"The graph takes RGB pictures of any size as {values} (batch, 3, height, width), "
                "all of a batch in one size, and resizes, crops and normalises them itself: do not "
                "prepare them before."
            )
        channels, *sides = self.example.shape[1:]
        size = "height, width" if self.options.any_size else ", ".join(map(str, sides))
        return (
            f"The graph takes prepared images as float32 (batch, {channels}, {size}) and resizes "
            "nothing itself: prepare each picture before, as README.md beside it says under Input "
            "(in Python by the transform that the run printed)."
        )

    @property
    def threshold(self) -> float:
        """Output from which a class of several counts as present."""
        return 0.5 if self.options.probabilities else 0.0

    @property
    def example(self) -> Tensor:
        """What the exporter follows through the graph: two images, or one for a detector."""
        if self.is_detector:
            return self.saved.preprocess(next(self.images.pictures()))
        if self.takes_pictures:
            return self.picture[None].repeat(2, 1, 1, 1)
        return networks_to_time.example_of(self.saved).expand(2, -1, -1, -1).contiguous()

    @property
    def picture(self) -> Tensor:
        """A whole picture in the form of a graph that prepares pictures."""
        # Not square, and neither side that of the network: nothing is then taken for a constant.
        side = networks_to_time.example_of(self.saved).shape[-1]
        picture = (checking.smooth(3, 2 * side + 3, 3 * side + 7, 0) * 255).byte()
        return picture if self.options.preprocessing == "inside" else picture.float() / 255

    def compare(self, run: Runner, graph: Callable[[Tensor], Tensor] | None = None) -> Compared:
        """Compare a file with the graph, or with another one of the same images."""
        if isinstance(self.graph, Detections):
            return checking.compare_detector(self.graph, run, self.images)
        return checking.compare(
            graph or self.graph,
            run,
            self.images,
            self.options.preprocessing,
            threshold=self.threshold,
        )

    def pipeline(self, run: Runner) -> Parity:
        """Compare a file that prepares pictures with images prepared as in the evaluation."""
        pictures = self.images.inputs(self.options.preprocessing)

        def unprepared(images: Tensor) -> list[Tensor]:
            return [torch.cat([run(next(pictures))[0] for _ in images])]

        prepared = self._graph("outside")
        return checking.compare(
            prepared, unprepared, self.images, "outside", threshold=self.threshold
        ).parity

    def _graph(self, preparation: Preparation) -> nn.Module:
        if self.is_detector:
            return Detections(self.saved.module).eval()
        before, several = None, checking.decision_of(self.saved) == "classes"
        if preparation != "outside":
            steps = self.saved.config.preprocessing
            before = Prepared(steps, bytes=preparation == "inside")
        scores: Literal["softmax", "sigmoid"] = "sigmoid" if several else "softmax"
        probabilities: Literal["", "softmax", "sigmoid"] = (
            scores if self.options.probabilities else ""
        )
        return Graph(self.saved.module, before=before, probabilities=probabilities).eval()


def write_onnx(subject: Subject) -> tuple[Runner, Parity]:
    """Write and verify the ONNX file; return what runs it, and its difference to the student.

    Raises:
        NetworkError: The exporter fails, or the file does not compute what the student computes.
    """
    options = subject.options
    with _named_once_verified(subject.folder / ONNX) as path:
        if subject.is_detector:
            traced = Detections(subject.saved.module, traced=True).eval()
            onnx_export.write_detector(traced, subject.example, path, opset=options.opset)
        else:
            onnx_export.write_onnx(
                subject.graph,
                subject.example,
                path,
                opset=options.opset,
                any_size=options.any_size or subject.takes_pictures,
                output="probabilities" if options.probabilities else "output",
            )
        run = onnx_export.runner(path)
        return run, _verified(subject, run, path)


def write_program(subject: Subject) -> tuple[Runner, Parity]:
    """Write and verify the program of `torch.export`, as `write_onnx` does.

    Raises:
        NetworkError: As for `write_onnx`.
    """
    any_size = subject.options.any_size or subject.takes_pictures
    with _named_once_verified(subject.folder / PROGRAM) as path:
        torch_export.write_program(subject.graph, subject.example, path, any_size=any_size)
        run = torch_export.runner(path)
        return run, _verified(subject, run, path)


@contextmanager
def _named_once_verified(path: Path) -> Iterator[Path]:
    """Yield a hidden file to write and verify, which then gets the name `path`.

    Whoever kills an export finds no file of that name that was not verified; after an error there
    is none, not even that of an earlier export.
    """
    try:
        hidden = tempfile.TemporaryDirectory(prefix=".", suffix=PARTIAL, dir=path.parent)
    except OSError as error:
        raise files.write_error(error, path, 0, again="export again") from error
    with hidden:
        file = Path(hidden.name) / path.name
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        file.replace(path)


def _verified(subject: Subject, run: Runner, path: Path) -> Parity:
    """Return the difference of a file to the student.

    Raises:
        NetworkError: It is too large.
    """
    parity = subject.compare(run).parity
    parity.check(path.name)
    return parity


def write_int8(
    subject: Subject, training: Images, *, max_drop: float, keep: Sequence[str] = ()
) -> Int8:
    """Write the int8 file of an ONNX file that is there, and refuse it if it loses too much.

    Args:
        subject: The student.
        training: Training images.
        max_drop: Points of the metric that it may lose.
        keep: Layers to leave in fp32.

    Raises:
        NetworkError: It loses more, or cannot be made.
    """
    source, preparation = subject.folder / ONNX, subject.options.preprocessing
    with _named_once_verified(subject.folder / INT8) as target:
        quantise.quantise(source, target, training.inputs(preparation), keep=keep)
        fp32 = onnx_export.runner(source)
        compared = subject.compare(onnx_export.runner(target), lambda images: fp32(images)[0])
        count = len(training.real) if training.real else 0
        judged = checking.judged(compared, subject.images, count=count, kept=list(keep))
        if not judged.drop <= max_drop:
            images = islice(training.inputs(preparation), 1)
            worst = quantise.worst_layers(source, target, images)
            raise NetworkError(_too_much(judged, max_drop, worst))
    return judged


def _too_much(judged: Int8, max_drop: float, worst: Sequence[tuple[str, float]]) -> str:
    layers = [f"{layer} ({fall:.0f} dB)" for layer, fall in worst[:3]]
    named = f" Most is lost in {', '.join(layers)}." if layers else ""
    keep = " ".join(layer for layer, _ in worst[:3])
    return (
        f"int8 loses {judged.drop:.2f} points, more than --max-drop {max_drop:g}: "
        f"{judged.sentence}. The file was removed.{named} Try --keep-fp32 {keep}, which leaves "
        "these layers in fp32, or allow more by --max-drop."
    )
