"""Whole optimizer steps captured as CUDA graphs, sixteen in a launch.

A step on small images is hundreds of kernels of a few microseconds each. Launched one by one, they
take as long as the host needs to launch them. A graph launches all of them at once, and nothing in
it waits for the host: the pixels, the order of the epoch and the learning rates lie on the device,
and so does the number of the step, from which views, the teacher's features, losses, gradients and
the update follow.
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
from understudy.distillation.distiller import weighted_total
from understudy.training.update import Update

STEPS = 16
"""Optimizer steps of one launch."""
_WARM_UP = 3
"""Steps before a capture, in which libraries choose their kernels; they are undone."""

_CAPTURE_ERROR: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)
"""Error of CUDA, which had no class of its own before torch 2.8."""

Losses = dict[str, Float[Tensor, ""]]


@final
class CudaGraphs:
    """Launches the optimizer steps of an epoch as CUDA graphs.

    A graph is captured for every pair of (images of a step, steps of a launch) when it is needed.

    Args:
        loader: Order and views of the images, which are in memory.
        optimizer: Optimizer of `update`; its learning rate becomes a number on the device.
        losses: Returns every loss of a batch by name, unweighted.
        update: Ends a step.
        trainable: Module whose parameters and buffers a step changes.
        memory_format: Memory format of the images.
        device: The GPU.

    Attributes:
        names: Names of the losses and `total`, in the order of `take_sums`; empty before a capture.
    """

    def __init__(
        self,
        *,
        loader: Loader,
        optimizer: Optimizer,
        losses: Callable[[Batch], Losses],
        update: Update,
        trainable: nn.Module,
        memory_format: torch.memory_format,
        device: torch.device,
    ) -> None:
        assert isinstance(loader.views, MemoryViews)
        self._loader, self._optimizer = loader, optimizer
        self._losses, self._update = losses, update
        self._trainable, self._memory_format = trainable, memory_format
        self._views, self._labels = loader.views.to(device), loader.labels.to(device)
        self._order = torch.zeros(2, len(loader) * loader.batch, dtype=torch.int64, device=device)
        self._lrs = torch.zeros(len(loader), device=device)
        # A graph reads these addresses at every launch: from now on they are only filled.
        self._lr, self._step = self._lrs[0].clone(), self._order.new_zeros(())
        self._weights: dict[str, Float[Tensor, ""]] = {}
        self._sums = torch.zeros(0, dtype=torch.float64, device=device)
        self.names: list[str] = []
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}

    def epoch(
        self, number: int, start: int, *, lrs: list[float], weights: Mapping[str, float]
    ) -> Iterator[tuple[int, int]]:
        """Launch the steps of an epoch from `start`; yield the steps and images of each launch.

        Args:
            number: Number of the epoch, counted from 0.
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
        for size, count in self._launches(start, images):
            self._step.fill_(start)
            self._graph(size, count).replay()
            start += count
            yield count, size * count

    def take_sums(self) -> Float[Tensor, " losses"]:
        """Return the losses summed over the steps since the last call, and start again from 0."""
        sums = self._sums.clone()
        self._sums.zero_()
        return sums

    def _launches(self, start: int, images: int) -> Iterator[tuple[int, int]]:
        """Yield the images of a step, and the steps, of every launch."""
        full, rest = divmod(images, self._loader.batch)
        while start < full:
            # Single steps at the end, instead of a graph for every number of steps left.
            count = STEPS if full - start >= STEPS else 1
            yield self._loader.batch, count
            start += count
        # After a restart from a state that was saved behind the last step, nothing is left.
        if rest and start == full:
            yield rest, 1

    def _graph(self, size: int, count: int) -> torch.cuda.CUDAGraph:
        """Return the graph of `count` steps of `size` images, captured at the first call."""
        if (size, count) not in self._graphs:
            graph = self._try_capture(size, count)
            if graph is None:
                self._optimizer.zero_grad()
                graph = self._capture(size, count)
            self._graphs[size, count] = graph
        return self._graphs[size, count]

    def _capture(self, size: int, count: int) -> torch.cuda.CUDAGraph:
        # A gradient's node that a reference cycle keeps alive belongs to the stream it was made on.
        gc.collect()
        # A tensor: a Python number would be captured with its present value.
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr
        step, sums = self._step.clone(), self._sums.clone()
        before = [x.clone() for x in self._state()]
        fresh = not self._optimizer.state
        # CUDA demands a stream of its own for warm-up and capture.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        # Kernels are chosen by trying them, once: shapes never change in a graph.
        with torch.cuda.stream(aside), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(_WARM_UP):
                self._run_step(size)
                self._step.copy_(step)
        torch.cuda.current_stream().wait_stream(aside)
        self._undo(before, fresh=fresh)
        graph = self._record(size, count)
        # Sums of before stay; they are empty before the first capture, which names the losses.
        self._sums.zero_()[: len(sums)] = sums
        return graph

    def _try_capture(self, size: int, count: int) -> torch.cuda.CUDAGraph | None:
        """Return the graph; None if the capture fails, which changes no weight.

        With torch 2.11 the first capture of a process fails: a gradient's node still belongs to the
        default stream. The second one succeeds.
        """
        try:
            return self._capture(size, count)
        except _CAPTURE_ERROR:
            return None

    def _record(self, size: int, count: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(count):
                self._run_step(size)
        return graph

    def _run_step(self, size: int) -> None:
        """Do one optimizer step, from the order of the epoch to new weights."""
        first = self._step * self._loader.batch
        index, number = self._order[:, first + torch.arange(size, device=first.device)]
        images = self._views.show(index, number).contiguous(memory_format=self._memory_format)
        labels = self._labels.index_select(0, index)
        batch = Batch(images, labels, index, number, smoothing=self._loader.smoothing)
        losses = self._losses(batch)
        total = weighted_total(losses, self._weights)
        total.backward()  # type: ignore[no-untyped-call]
        self._lr.copy_(self._lrs.index_select(0, self._step.reshape(1)).squeeze())
        self._update()
        self._add(losses, total)
        # For the next step of the same launch.
        self._step.add_(1)

    def _add(self, losses: Losses, total: Tensor) -> None:
        if not self.names:
            self.names = [*losses, "total"]
            self._sums = self._sums.new_zeros(len(self.names))
        self._sums.add_(torch.stack([*losses.values(), total]).detach())

    def _weights_and_buffers(self) -> Iterable[Tensor]:
        return chain(self._trainable.parameters(), self._trainable.buffers())

    def _state(self) -> Iterable[Tensor]:
        """Iterate over all that a step changes, except gradients."""
        return chain(self._weights_and_buffers(), _tensors(self._optimizer))

    @torch.no_grad()
    def _undo(self, before: list[Tensor], *, fresh: bool) -> None:
        """Restore the state before the warm-up; a `fresh` optimizer gets a momentum of zero."""
        for x in _tensors(self._optimizer) if fresh else ():
            x.zero_()
        state = self._weights_and_buffers() if fresh else self._state()
        for x, old in zip(state, before, strict=True):
            x.copy_(old)


def _tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    states: Iterable[dict[str, Any]] = optimizer.state.values()
    return (x for state in states for x in state.values() if isinstance(x, Tensor))
