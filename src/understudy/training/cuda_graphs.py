"""Whole optimizer steps captured as CUDA graphs, sixteen in a launch.

A step on small images is hundreds of kernels of a few microseconds each: launched one by one, the
host decides how long it takes. A graph launches them all at once, and nothing in it asks the host:
the order of the epoch, the learning rates and the pixels lie on the device, a counter there says
which step it is, and views, teacher (or its table), losses, gradients and the optimizer follow.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from understudy.batch import Batch
from understudy.data.loader import Loader
from understudy.data.views import MemoryViews

STEPS = 16
"""Optimizer steps of one launch."""
_WARM_UP = 3
"""Steps before the capture, in which libraries choose their kernels; they are undone."""

Losses = dict[str, Float[Tensor, ""]]


@final
class Graphs:
    """The optimizer steps of an epoch, as launches.

    Args:
        loader: Order and views of the images, which are in memory.
        optimizer: Its learning rate becomes a number on the device.
        losses: Of a batch: every loss by name, unweighted.
        trained: Module whose parameters and buffers a step changes.
        clip: Largest norm of the gradient, or None.
        layout: Memory format of the images.
        device: The GPU.
    """

    def __init__(
        self,
        *,
        loader: Loader,
        optimizer: Optimizer,
        losses: Callable[[Batch], Losses],
        trained: nn.Module,
        clip: float | None,
        layout: torch.memory_format,
        device: torch.device,
    ) -> None:
        assert isinstance(loader.views, MemoryViews)
        self._loader, self._optimizer, self._losses = loader, optimizer, losses
        self._trained, self._clip, self._layout = trained, clip, layout
        self._views, self._labels = loader.views.on(device), loader.labels.to(device)
        self._order = torch.zeros(2, len(loader) * loader.batch, dtype=torch.int64, device=device)
        self._lrs = torch.zeros(len(loader), device=device)
        self._lr, self._step = self._lrs[0].clone(), self._order.new_zeros(())
        self._weights: dict[str, Float[Tensor, ""]] = {}
        self._sums = torch.zeros(0, dtype=torch.float64, device=device)
        self.names: list[str] = []
        self._launches: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}

    def epoch(
        self, number: int, start: int, *, lrs: list[float], weights: Mapping[str, float]
    ) -> Iterator[tuple[int, int]]:
        """Launch the steps of an epoch from `start`: of each launch, its steps and images.

        Args:
            number: Of the epoch, counted from 0.
            start: First step.
            lrs: Learning rate of every step.
            weights: Loss → its weight in this epoch.
        """
        order = self._loader.epoch_order(number)
        images = len(order[0])
        self._order[:, :images].copy_(torch.stack(order))
        self._lrs.copy_(torch.tensor(lrs))
        for name, weight in weights.items():
            self._weights.setdefault(name, torch.zeros_like(self._lr)).fill_(weight)
        for size, count in self._launched(start, images):
            self._step.fill_(start)
            self._launch(size, count).replay()
            start += count
            yield count, size * count

    def sums(self) -> Float[Tensor, " losses"]:
        """Sums of the losses and of their total since the last time, in the order of `names`."""
        found = self._sums.clone()
        self._sums.zero_()
        return found

    def _launched(self, start: int, images: int) -> Iterator[tuple[int, int]]:
        """Images of a step, and steps, of every launch."""
        full, rest = divmod(images, self._loader.batch)
        while start < full:
            count = STEPS if full - start >= STEPS else 1
            yield self._loader.batch, count
            start += count
        if rest:
            yield rest, 1

    def _launch(self, size: int, count: int) -> torch.cuda.CUDAGraph:
        """So many steps of so many images; captured when they are first asked for."""
        if (size, count) not in self._launches:
            graph = self._attempted(size, count)
            if graph is None:
                self._optimizer.zero_grad()
                graph = self._captured(size, count)
            self._launches[size, count] = graph
        return self._launches[size, count]

    def _captured(self, size: int, count: int) -> torch.cuda.CUDAGraph:
        # A gradient's node that a reference cycle keeps alive belongs to the stream it was made on.
        gc.collect()
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr
        step, sums = self._step.clone(), self._sums.clone()
        before = [x.clone() for x in self._state()]
        fresh = not self._optimizer.state
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        # Kernels are chosen by trying them, once: shapes never change in a graph.
        with torch.cuda.stream(aside), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(_WARM_UP):
                self._one(size)
                self._step.copy_(step)
        torch.cuda.current_stream().wait_stream(aside)
        self._undo(before, fresh=fresh)
        graph = self._recorded(size, count)
        self._sums.zero_()[: len(sums)] = sums
        return graph

    def _attempted(self, size: int, count: int) -> torch.cuda.CUDAGraph | None:
        """None if the capture fails.

        With torch 2.11 the first one of a process does: a gradient's node belongs to the default
        stream still. It does no step, and the second capture succeeds.
        """
        try:
            return self._captured(size, count)
        except torch.AcceleratorError:
            return None

    def _recorded(self, size: int, count: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(count):
                self._one(size)
        return graph

    def _one(self, size: int) -> None:
        """One optimizer step, from the order of the epoch to new weights."""
        first = self._step * self._loader.batch
        index, number = self._order[:, first + torch.arange(size, device=first.device)]
        images = self._views.show(index, number).contiguous(memory_format=self._layout)
        labels = self._labels.index_select(0, index)
        batch = Batch(images, labels, index, number, smoothing=self._loader.smoothing)
        losses = self._losses(batch)
        total = torch.stack([self._weights[name] * x for name, x in losses.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self._trained.parameters(), self._clip)
        self._lr.copy_(self._lrs.index_select(0, self._step.reshape(1)).squeeze())
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._add(losses, total)
        self._step.add_(1)

    def _add(self, losses: Losses, total: Tensor) -> None:
        if not self.names:
            self.names = [*losses, "total"]
            self._sums = self._sums.new_zeros(len(self.names))
        self._sums.add_(torch.stack([*losses.values(), total]).detach())

    def _own(self) -> Iterable[Tensor]:
        return chain(self._trained.parameters(), self._trained.buffers())

    def _state(self) -> Iterable[Tensor]:
        """All that a step changes, but gradients."""
        return chain(self._own(), _tensors(self._optimizer))

    @torch.no_grad()
    def _undo(self, before: list[Tensor], *, fresh: bool) -> None:
        """Everything as it was; a momentum that there was not yet becomes zero."""
        for x in _tensors(self._optimizer) if fresh else ():
            x.zero_()
        for x, old in zip(self._own() if fresh else self._state(), before, strict=True):
            x.copy_(old)


def _tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    states: Iterable[dict[str, Any]] = optimizer.state.values()
    return (x for state in states for x in state.values() if isinstance(x, Tensor))
