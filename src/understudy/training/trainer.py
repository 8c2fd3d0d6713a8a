"""The training loop: an iterator of epochs over any distiller, exact under restart.

Everything that happens in optimizer step `s` of epoch `e` is a function of the state after the
step before and of `(seed, e, s)`: the order of the images, their views, and what dropout draws.
A state saved between any two steps therefore continues bit for bit (on the CPU).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from understudy.bank import Resident
from understudy.batch import Batch
from understudy.config.recipe import Training
from understudy.data.loader import Loader
from understudy.data.views import MemoryViews, counter_hash
from understudy.distillation.distiller import Distiller
from understudy.errors import Diverged, OutOfMemory
from understudy.functional import seeded
from understudy.models.base import Wrapped
from understudy.profiling import span, spans
from understudy.training.cuda_graphs import Graphs
from understudy.training.devices import choose, share_measured
from understudy.training.lr_schedule import learning_rate
from understudy.training.out_of_memory import Splitting, ran_out

LOGGER = logging.getLogger("understudy")

CLIP = 10.0
"""Norm of the gradient above which hashes alone were seen to end a detector's training in NaN."""


@dataclass
class Position:
    """How far training has come; `step` counts within the epoch, both from 0."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave; losses are means over its steps."""

    number: int
    step: int
    seconds: float
    images_per_second: float
    lr: float
    losses: dict[str, float]


class Trainer:
    """A distiller with its optimizer and its position in training.

    Args:
        distiller: Prepared student, teacher and methods.
        loader: Training images.
        training: How to train.
        seed: Seed of what dropout draws.
        accelerator: Devices, processes and precision.
        resident: Gives a complete bank on the GPU, if there is one; asked only where steps are
            captured.
    """

    def __init__(
        self,
        distiller: Distiller,
        loader: Loader,
        training: Training,
        *,
        seed: int,
        accelerator: Accelerator,
        resident: Callable[[], Resident | None] = lambda: None,
    ) -> None:
        self.distiller, self.loader, self.training = distiller, loader, training
        self.seed, self.accelerator = seed, accelerator
        self.position = Position()
        self.choices = choose(training, distiller, accelerator.device)
        self.choices.place(distiller)
        self.ema = (
            AveragedModel(
                distiller.student,
                multi_avg_fn=get_ema_multi_avg_fn(training.ema),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if training.ema
            else None
        )
        if training.compile:
            distiller.trainable.compile()
            if distiller.teacher is not None:
                distiller.teacher.compile()
        self.splitting = Splitting(distiller.trainable)
        self.clip = training.clip
        if training.clip is None and distiller.trainable.unbounded_loss:
            self.clip = CLIP
            if accelerator.is_main_process:
                LOGGER.warning(
                    f"Clipping gradients to norm {CLIP:g}: the hash loss alone is unbounded."
                )
        self.optimizer = _optimizer(distiller, training)
        if accelerator.num_processes > 1:
            share_measured(distiller.trainable)
        self._trainable, scaling = accelerator.prepare(distiller.trainable, self.optimizer)
        # Accelerate's optimizer is for fp16; it looks for a package on disk at every step.
        self._optimizer = scaling if accelerator.scaler else self.optimizer
        self._names: list[str] = []
        self._sums = torch.zeros(())
        self._seeds: list[int] = []
        self._resident = resident() if self._graphable else None
        self._graphs = self._captured() if self._graphable else None

    @property
    def _graphable(self) -> bool:
        """Whether a step can be captured: on one GPU, on images in memory, drawing nothing."""
        draws = any(isinstance(m, nn.Dropout) and m.p for m in self.distiller.trainable.modules())
        return (
            self.choices.graphs
            and isinstance(self.loader.views, MemoryViews)
            and self.accelerator.num_processes == 1
            and self.training.accumulate == 1
            and not (draws or self.ema or self.accelerator.scaler)
            and not self.loader.mixing
        )

    def _captured(self) -> Graphs:
        # Captured steps draw too (CRD's negatives), all from one sequence: a launch sets no seed.
        torch.cuda.manual_seed(self.seed + 1)
        return Graphs(
            loader=self.loader,
            optimizer=self.optimizer,
            losses=self._losses,
            trained=self.distiller.trainable,
            clip=self.clip,
            layout=self.choices.layout,
            device=self.accelerator.device,
        )

    @property
    def may_wait(self) -> bool:
        """Whether to ask the device, or other processes, for more than gradients at this step.

        A GPU works ahead only as long as nothing waits for its results.
        """
        return self.accelerator.device.type == "cpu" or self.position.step % 16 == 0

    @property
    def student(self) -> Wrapped:
        """The student to evaluate and deploy: the moving average, if there is one."""
        return cast(Wrapped, self.ema.module) if self.ema else self.distiller.student

    def fit(self, after_step: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
        """Train from the present position to the last epoch.

        `after_step` is called between steps, where the state may be saved or training left.

        Raises:
            Diverged: A loss became NaN or infinite.
        """
        while self.position.epoch < self.training.epochs:
            yield self._epoch(after_step)

    def steps(self) -> Iterator[None]:
        """The optimizer steps left in this epoch, one done before each item."""
        here = self.position
        self.distiller.train()
        self._names = list(here.sums)
        self._sums = torch.tensor(
            list(here.sums.values()) or 0.0, dtype=torch.float64, device=self.accelerator.device
        )
        if self._graphs is not None:
            yield from self._launches(self._graphs)
            return
        steps, rank = torch.arange(len(self.loader)), self.accelerator.process_index
        self._seeds = counter_hash(self.seed, here.epoch, steps, rank).tolist()
        started = time.perf_counter() - here.seconds
        for parts in spans("input", self.loader.epoch(here.epoch, start=here.step)):
            self._step(parts)
            here.step += 1
            here.images += sum(len(part) for part in parts) * self.accelerator.num_processes
            here.seconds = time.perf_counter() - started
            yield

    def _launches(self, graphs: Graphs) -> Iterator[None]:
        """The steps left in this epoch, sixteen of them done before each item."""
        here, each = self.position, len(self.loader)
        started = time.perf_counter() - here.seconds
        rates = [learning_rate(self.training, here.epoch * each + s, each) for s in range(each)]
        weights = {name: w.at(here.epoch) for name, w in self.distiller.weights.items()}
        for steps, images in graphs.epoch(here.epoch, here.step, lrs=rates, weights=weights):
            here.step += steps
            here.images += images
            here.seconds = time.perf_counter() - started
            self._names = graphs.names
            yield
        torch.cuda.synchronize(self.accelerator.device)
        here.seconds = time.perf_counter() - started

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """What is captured: losses of a batch that lies on the device."""
        with self.accelerator.autocast():
            teacher = (
                self._resident.read(batch.index, batch.view)
                if self._resident
                else self.distiller.live(batch)
            )
            losses: dict[str, Tensor] = self.distiller.trainable(batch, teacher)
        return losses

    def _epoch(self, after_step: Callable[[], None]) -> Epoch:
        here = self.position
        for _ in self.steps():
            after_step()
        self._check()
        record = Epoch(
            number=here.epoch + 1,
            step=(here.epoch + 1) * len(self.loader),
            seconds=here.seconds,
            images_per_second=here.images / max(here.seconds, 1e-9),
            lr=float(self.optimizer.param_groups[0]["lr"]),
            losses=self.mean_losses(),
        )
        self.position = Position(epoch=here.epoch + 1)
        self._names = []
        return record

    def _step(self, parts: list[Batch]) -> None:
        here = self.position
        lr = learning_rate(
            self.training, here.epoch * len(self.loader) + here.step, len(self.loader)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        while not self._fitted(self.splitting.of(parts)):
            LOGGER.warning(self.splitting.double(parts))
        with span("check"):
            if self.may_wait:
                self._check()
        with span("optimizer"):
            self._update()

    def _fitted(self, parts: list[Batch]) -> bool:
        """Add up the gradients of a step; if memory runs out, all is left as it was before."""
        sums, size = self._sums, sum(map(len, parts))
        self.splitting.remember()
        # A seed for each step: dropout then draws the same after a restart, and a checkpoint holds
        # no state of a generator.
        seed = self._seeds[self.position.step]
        try:
            with seeded(seed, self.accelerator.device):
                for number, part in enumerate(parts, 1):
                    last = number == len(parts)
                    with nullcontext() if last else self.accelerator.no_sync(self._trainable):
                        self._backward(part, share=len(part) / size)
            return True
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if self.accelerator.num_processes > 1:
                raise OutOfMemory(self._no_split()) from error
        # The error is gone by now, and with it the activations that its traceback held.
        self._sums = sums
        self.splitting.undo()
        self.optimizer.zero_grad()
        return False

    def _backward(self, batch: Batch, *, share: float) -> None:
        batch = batch.to(self.accelerator.device, self.choices.layout)
        with span("teacher"):
            teacher = self.distiller.observe(batch)
        with span("forward"):
            losses = self._trainable(batch, teacher)
            total = self.distiller.total(losses, self.position.epoch)
        with span("backward"):
            self.accelerator.backward(total * share)
        self._names = [*losses, "total"]
        self._sums = self._sums + share * torch.stack([*losses.values(), total]).detach().double()

    def _update(self) -> None:
        if self.clip is not None:
            self.accelerator.clip_grad_norm_(self.distiller.trainable.parameters(), self.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.ema:
            self.ema.update_parameters(self.distiller.student)

    def _no_split(self) -> str:
        wanted = 2 * self.training.accumulate
        return (
            f"Memory ran out on one of {self.accelerator.num_processes} processes, which then can "
            f"only stop together: start again with training.accumulate {wanted}."
        )

    def _check(self) -> None:
        """Stop all processes if a loss of any was not finite: a finite sum had finite terms."""
        bad = [name for name, value in self._global_sums().items() if not math.isfinite(value)]
        if not bad:
            return
        culprit = next((name for name in bad if name != "total"), "total")
        raise Diverged(
            f"The loss '{culprit}' became NaN or infinite in epoch {self.position.epoch + 1}, "
            f"step {self.position.step + 1}. Lower training.lr or the weight of '{culprit}', "
            "or set training.clip; with fp16, try bf16."
        )

    def mean_losses(self) -> dict[str, float]:
        """Means over the steps of this epoch so far, over all processes."""
        steps = max(self.position.step, 1)
        return {name: value / steps for name, value in self._global_sums().items()}

    def _global_sums(self) -> dict[str, float]:
        if not self._names:
            return {}
        if self._graphs is not None:
            self._sums = self._sums + self._graphs.sums()
        sums = self._sums
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, reduction="mean")
        return dict(zip(self._names, sums.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly; tensors and plain values only.

        Raises:
            Diverged: It is not worth continuing from.
        """
        self._check()
        scaler = self.accelerator.scaler
        return {
            "position": asdict(self.position) | {"sums": self._global_sums()},
            "splitting": self.splitting.factor,
            "trainable": self.distiller.trainable.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": scaler.state_dict() if scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self.position = Position(**state["position"])
        self.splitting.factor = state["splitting"]
        self.distiller.trainable.load_state_dict(state["trainable"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _optimizer(distiller: Distiller, training: Training) -> Optimizer:
    parameters = [p for p in distiller.trainable.parameters() if p.requires_grad]
    if training.optimizer == "adamw":
        return AdamW(
            parameters,
            lr=training.lr,
            weight_decay=training.weight_decay,
            fused=True,
            capturable=parameters[0].is_cuda,
        )
    return SGD(
        parameters,
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        fused=True,
    )
