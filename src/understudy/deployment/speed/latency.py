"""Size, operations and latency of networks on this machine, timed in turn.

Times are medians of single calls. All networks are called one after the other, round by round, so
that whatever else the machine does meets all of them alike. Networks of the same layers are timed
once and share the figures: a difference between them would be noise.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from understudy.config.json_form import Form
from understudy.deployment.export import onnx_export
from understudy.errors import NetworkError
from understudy.models.cost import count_macs, num_parameters
from understudy.training import hardware

BATCHES = (1, 32)
"""Numbers of images in a call that are timed."""
_ROUNDS = 30
_SECONDS = 0.4
"""Calls of one network and batch stop after so long in total, but not before the third."""
_LONGEST = 2.0
"""Seconds of a batch above which it is not timed, by the time of a single image."""


@dataclass(frozen=True)
class Time:
    """Median time of a call.

    Attributes:
        runtime: `torch` or `onnxruntime`.
        precision: `fp32` or `int8`.
        batch: Images in the call.
        ms: Milliseconds of the whole call.
    """

    runtime: str
    precision: str
    batch: int
    ms: float


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        names: Roles or arms of this network, such as `student`; several where they share it.
        network: Its name.
        parameters: Number of parameters.
        bytes: Size of its weights in fp32 and, where that was made, of its file in int8.
        macs: Multiply-accumulate operations on one image; None where they could not be counted.
        image: Channels, height and width of the images that were timed.
        times: All measured times.
        notes: Why something was not measured.
    """

    names: list[str]
    network: str
    parameters: int
    bytes: dict[str, int]
    macs: int | None
    image: list[int]
    times: list[Time]
    notes: list[str] = field(default_factory=list)

    def ms(self, runtime: str, precision: str, batch: int) -> float | None:
        """Return a measured time in milliseconds; None if it was not measured."""
        key = (runtime, precision, batch)
        measured = {(t.runtime, t.precision, t.batch): t.ms for t in self.times}
        return measured.get(key)


@dataclass(frozen=True)
class Speeds:
    """Size and latency of some networks on one machine.

    Attributes:
        machine: Processor and GPU.
        threads: Threads of the CPU.
        rows: The networks.
        notes: Which networks were not measured, and why.
    """

    machine: str
    threads: int
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Speeds":
        """Read what `to_dict` returned, of the form `SPEEDS`."""
        rows = [
            Row(**{**row, "times": [Time(**t) for t in row["times"]]}) for row in content["rows"]
        ]
        return cls(content["machine"], content["threads"], rows, content["notes"])

    def of(self, name: str) -> Row | None:
        """Return the row of a role or arm; None without one."""
        return next((row for row in self.rows if name in row.names), None)


_TIME: Form = {"runtime": str, "precision": str, "batch": int, "ms": float}
SPEEDS: Form = {
    "machine": str,
    "threads": int,
    "rows": [
        {
            "names": [str],
            "network": str,
            "parameters": int,
            "bytes": {str: int},
            "macs": (int, None),
            "image": [int],
            "times": [_TIME],
            "notes": [str],
        }
    ],
    "notes": [str],
}
"""Form of figures in JSON."""


@dataclass(frozen=True)
class Candidate:
    """A network to be measured.

    Attributes:
        name: Role or arm.
        network: Name of the network.
        module: In evaluation mode, on the CPU.
        image: One image as the module takes it, without a dimension for the batch.
        files: Precision → ONNX file of it, if there is one.
        file_image: One image as these files take it, if they prepare images themselves.
        detector: True if it takes a list of images, one of which is timed.
    """

    name: str
    network: str
    module: nn.Module
    image: Tensor
    files: Mapping[str, Path] = field(default_factory=dict)
    file_image: Tensor | None = None
    detector: bool = False


_Call = Callable[[], object]
_Key = tuple[str, str, int]
"""Runtime, precision and batch."""


def measure(candidates: Sequence[Candidate]) -> Speeds:
    """Measure networks on the CPU; those of the same layers share a row."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(_structure(candidate), []).append(candidate)
    calls, notes = list[tuple[str, _Key, _Call]](), dict[str, list[str]]()
    for key, group in groups.items():
        own, notes[key] = _calls(group)
        calls += [(key, what, call) for what, call in own.items()]
    times = _timed(calls)
    rows = [_row(group, times[key], notes[key]) for key, group in groups.items()]
    return Speeds(hardware.describe()["machine"], torch.get_num_threads(), rows)


def _structure(candidate: Candidate) -> str:
    """Return what networks that take the same time have in common."""
    shapes = [tuple(x.shape) for x in candidate.module.state_dict().values()]
    return f"{candidate.module} {shapes} {tuple(candidate.image.shape)}"


def _row(group: Sequence[Candidate], times: list[Time], notes: list[str]) -> Row:
    first = group[0]
    files = {name: path for one in group for name, path in one.files.items()}
    state = first.module.state_dict().values()
    sizes = {"fp32": sum(x.numel() * x.element_size() for x in state)}
    sizes |= {name: path.stat().st_size for name, path in files.items() if name != "fp32"}
    try:
        macs: int | None = count_macs(first.module, _images(first, 1))
    except Exception as error:
        macs, notes = None, [*notes, f"operations not counted: {onnx_export.first_line(error)}"]
    return Row(
        [one.name for one in group],
        first.network,
        num_parameters(first.module),
        sizes,
        macs,
        list(first.image.shape),
        times,
        notes,
    )


def _images(candidate: Candidate, batch: int) -> Any:
    """Return images as the module takes them."""
    return [candidate.image] if candidate.detector else _batch(candidate.image, batch)


def _single(image: Tensor, batch: int) -> Tensor:
    return image


def _batch(image: Tensor, batch: int) -> Tensor:
    return image.expand(batch, *image.shape).contiguous()


def _calls(group: Sequence[Candidate]) -> tuple[dict[_Key, _Call], list[str]]:
    """Return the calls of one network that are short enough to be timed, and what is left out."""
    calls, notes = dict[_Key, _Call](), list[str]()
    batches = BATCHES[:1] if group[0].detector else BATCHES
    for key, call in _callers(group, notes).items():
        seconds = _seconds(call, enough=_LONGEST / max(batches)) if len(batches) > 1 else 0.0
        for batch in batches:
            if batch > 1 and batch * seconds > _LONGEST:
                notes.append(f"a batch of {batch} takes over {_LONGEST:.0f} s and was not timed")
            else:
                calls[(*key, batch)] = partial(call, batch)
    return calls, list(dict.fromkeys(notes))


def _callers(
    group: Sequence[Candidate], notes: list[str]
) -> dict[tuple[str, str], Callable[[int], object]]:
    """Return runtime and precision → function that computes a batch of so many images."""
    first = group[0]
    callers: dict[tuple[str, str], Callable[[int], object]] = {
        ("torch", "fp32"): _caller(first.module, lambda batch: _images(first, batch))
    }
    for one in group:
        for precision, path in one.files.items():
            try:
                run = onnx_export.runner(path)
            except NetworkError as error:
                notes.append(str(error))
                continue
            image = one.image if one.file_image is None else one.file_image
            images = partial(_single, image) if one.detector else partial(_batch, image)
            callers["onnxruntime", precision] = _caller(run, images)
    return callers


def _caller(run: Callable[[Any], object], images: Callable[[int], Any]) -> Callable[[int], object]:
    """Return a function of the number of images, which are made once for each number."""
    made = lru_cache(maxsize=None)(images)
    return lambda batch: run(made(batch))


@torch.inference_mode()
def _seconds(call: Callable[[int], object], *, enough: float) -> float:
    """Return the seconds for one image, the shortest of up to three calls after a first one.

    A single call may be interrupted by whatever else the machine does.

    Args:
        call: Computes a batch.
        enough: A call as short as this needs no other.
    """
    call(1)
    shortest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        call(1)
        shortest = min(shortest, time.perf_counter() - start)
        if shortest <= enough:
            break
    return shortest


@torch.inference_mode()
def _timed(calls: Sequence[tuple[str, _Key, _Call]]) -> dict[str, list[Time]]:
    """Time all calls in turn until each has been timed often or long enough."""
    samples: list[list[float]] = [[] for _ in calls]
    for _, _, call in calls:
        call()
    for _ in range(_ROUNDS):
        for (_, _, call), seconds in zip(calls, samples, strict=True):
            if len(seconds) >= 3 and sum(seconds) > _SECONDS:
                continue
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    times: dict[str, list[Time]] = {}
    for (key, what, _), seconds in zip(calls, samples, strict=True):
        times.setdefault(key, []).append(Time(*what, round(1000 * median(seconds), 4)))
    return times
