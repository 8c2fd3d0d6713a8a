"""Profiling: named spans of a training step, measured over a few steps."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch._C._autograd import DeviceType
from torch.autograd import profiler
from torch.profiler import ProfilerActivity, profile, record_function, schedule

LOGGER = logging.getLogger("understudy")

T = TypeVar("T")

_IDLE, _WARM, _MEASURED = 2, 3, 10
"""Steps that are skipped, that warm the profiler up, and that are measured."""
_MARK, _STEP = "understudy: ", "ProfilerStep"
_NOTHING: AbstractContextManager[Any] = nullcontext()


def span(name: str) -> AbstractContextManager[Any]:
    """Mark a part of a step for the profiler; a part within a part has a `/` in its name.

    Without a profiler it takes a quarter of a microsecond; in compiled code, no time at all.
    """
    return record_function(_MARK + name) if profiler._is_profiler_enabled else _NOTHING


def spans(name: str, items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, and mark the time that each takes to be made as a span."""
    iterator, end = iter(items), object()
    while True:
        with span(name):
            item = next(iterator, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


@final
class Profile:
    """Measures a few steps of a training run, then lets it go on as usual.

    The table, time per step of every span, is a line of `info` in the log.

    Args:
        file: Where the trace is written, to be opened in Perfetto or chrome://tracing.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._done = file, False
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=_IDLE, warmup=_WARM, active=_MEASURED, repeat=1),
            on_trace_ready=self._finish,
        )

    def __enter__(self) -> "Profile":
        self._profiler.start()
        return self

    def step(self) -> None:
        """Tell the profiler that a step of training is done."""
        if not self._done:
            self._profiler.step()

    def __exit__(self, *error: object) -> None:
        if not self._done:
            self._profiler.stop()  # which finishes a trace that has begun
        if not self._done:
            LOGGER.warning(f"Nothing was profiled: training ended within {_IDLE + _WARM} steps.")

    def _finish(self, measured: profile) -> None:
        self._done = True
        partial = self._file.with_name(f".{self._file.name}.partial")
        measured.export_chrome_trace(str(partial))
        partial.replace(self._file)
        LOGGER.info(f"{_table(measured)}\ntrace: {self._file}")


def _table(measured: profile) -> str:
    """Return a table of the time per step of every span, the longest first.

    Shares are of the sum of all spans that are no part of another one.
    """
    steps, between, on_host, on_device = 0, 0.0, Counter[str](), Counter[str]()
    for event in measured.key_averages():
        on_cpu, name = event.device_type == DeviceType.CPU, event.key.removeprefix(_MARK)
        if event.key.startswith(_STEP) and on_cpu:
            steps, between = steps + event.count, between + event.cpu_time_total
        elif name != event.key and on_cpu:
            on_host[name] += event.cpu_time_total
        elif name != event.key:
            on_device[name] += event.device_time_total
    step = sum(time for name, time in on_host.items() if "/" not in name)
    lines = [f"{'span':<24} {'ms/step':>9} {'share':>6}{'  on the GPU' * bool(on_device)}"]
    for name, time in [*on_host.most_common(), ("step", step)]:
        device = f"{on_device[name] / steps / 1e3:12.3f}" if on_device[name] else ""
        lines.append(f"{name:<24} {time / steps / 1e3:9.3f} {time / step:6.1%}{device}")
    rest = f"{'between steps':<24} {(between - step) / steps / 1e3:9.3f}"
    return "\n".join([f"profile of {steps} steps", *lines, rest])
