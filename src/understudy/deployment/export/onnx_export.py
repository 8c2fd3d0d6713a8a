"""Write a network as ONNX, and run such a file by ONNX Runtime.

Networks of whole images go through the exporter that is built on `torch.export`. Detectors of
torchvision fail in it and go through the classic one, which follows one image through the network.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy import files
from understudy.config.extras import installation
from understudy.errors import NetworkError, UnderstudyError

OPSET = 18
"""The newest operators that the exporter of torch writes itself, without converting the graph."""
_TRANSLATES = "2.7"
"""Release of torch that translates batch normalisation with every onnxscript (its issue 2651)."""
_NEWER = (
    f". If it is batch normalisation, torch {torch.__version__} does not translate it with newer "
    f"onnxscript: install torch {_TRANSLATES} or newer, or export --to torch-export."
)
_LONGEST = 4096
"""Largest side in pixels of a graph that takes images of any size."""

Runner = Callable[[Tensor], list[Tensor]]
"""Takes a batch of images, or for a detector one image `(3, height, width)`; returns outputs."""


def needed(name: str) -> ModuleType:
    """Import one of the libraries that export needs.

    Raises:
        UnderstudyError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UnderstudyError(
            f"Exporting to ONNX needs {name}, which is not installed: {installation('export')}."
        ) from error


def write_onnx(
    graph: nn.Module,
    example: Tensor,
    path: Path,
    *,
    opset: int | None = None,
    any_size: bool = False,
    output: str = "logits",
) -> None:
    """Write a network of whole images, for batches of any number of images.

    Args:
        graph: In evaluation mode.
        example: Two images as it takes them.
        path: File to write.
        opset: Version of ONNX's operators; None for `OPSET`.
        any_size: Let height and width of the images be free too.
        output: Name of the output.

    Raises:
        NetworkError: The exporter fails.
    """
    for library in ("onnx", "onnxscript"):
        needed(library)
    dimensions = free_dimensions(any_size=any_size)
    with exporting("ONNX"):
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=[output],
            opset_version=opset or OPSET,
            dynamic_shapes=(dimensions,),
            verbose=False,
        )
    assert program is not None
    _write(path, program.model_proto.SerializeToString())


def write_detector(
    detector: nn.Module, example: Tensor, path: Path, *, opset: int | None = None
) -> None:
    """Write a detector of torchvision, for one image of any size at a time.

    Args:
        detector: In evaluation mode.
        example: An image with values in [0, 1], on which it detects something.
        path: File to write.
        opset: Version of ONNX's operators; None for `OPSET`.

    Raises:
        NetworkError: The exporter fails.
    """
    axes = {"image": {1: "height", 2: "width"}} | {x: {0: "objects"} for x in DETECTOR_OUTPUTS}
    _write_classic(detector, example, path, DETECTOR_OUTPUTS, axes, opset=opset)


def write_for_timing(graph: nn.Module, example: Tensor, path: Path) -> None:
    """Write a network of whole images by the classic exporter, ten times as fast and not verified.

    Raises:
        NetworkError: The exporter fails.
    """
    axes = {"image": {0: "batch"}, "output": {0: "batch"}}
    _write_classic(graph, example, path, ("output",), axes, opset=None)


def _write_classic(
    graph: nn.Module,
    example: Tensor,
    path: Path,
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
    *,
    opset: int | None,
) -> None:
    needed("onnx")
    file = io.BytesIO()
    with exporting("ONNX"):
        torch.onnx.export(
            graph,
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["image"],
            output_names=list(outputs),
            opset_version=opset or OPSET,
            dynamic_axes=axes,
        )
    _write(path, file.getvalue())


DETECTOR_OUTPUTS = ("boxes", "labels", "scores")
"""Outputs of the file of a detector."""


def free_dimensions(*, any_size: bool) -> dict[int, Any]:
    """Return the dimensions of the images that are free: their number, on request their sides."""
    dimensions: dict[int, Any] = {0: torch.export.Dim("batch")}
    if any_size:
        dimensions |= {
            2: torch.export.Dim("height", min=2, max=_LONGEST),
            3: torch.export.Dim("width", min=2, max=_LONGEST),
        }
    return dimensions


def runner(path: Path, *, threads: int | None = None) -> Runner:
    """Return a function that runs a file by ONNX Runtime on the CPU.

    Args:
        path: The file.
        threads: Threads of the CPU; None for those that torch uses.

    Raises:
        NetworkError: ONNX Runtime cannot run the file.
    """
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise NetworkError(f"ONNX Runtime cannot run {path}: {first_line(error)}") from error
    (entry,) = session.get_inputs()

    def run(images: Tensor) -> list[Tensor]:
        outputs = session.run(None, {entry.name: np.ascontiguousarray(images.numpy())})
        return [torch.from_numpy(output) for output in outputs]

    return run


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content, again="export again")


@contextmanager
def exporting(form: str) -> Iterator[None]:
    """Silence what an exporter prints, and turn what it raises into one sentence.

    Args:
        form: Form of the file, for the error.

    Raises:
        NetworkError: Any error, with the first cause.
    """
    try:
        # torch logs whole graphs.
        with torch.no_grad(), warnings.catch_warnings(), silenced(logging.CRITICAL):
            warnings.simplefilter("ignore")
            yield
    except UnderstudyError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps what went wrong
            cause = cause.__cause__
        newer = "" if form != "ONNX" or torch.__version__ >= _TRANSLATES else _NEWER
        raise NetworkError(
            f"torch cannot export this network to {form}: {type(cause).__name__}: "
            f"{first_line(cause)}{newer}"
        ) from error


@contextmanager
def silenced(level: int) -> Iterator[None]:
    """Silence what a library prints and logs; failures are raised.

    Args:
        level: Of messages of the log, up to which none is written.
    """
    disabled = logging.root.manager.disable
    logging.disable(level)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
