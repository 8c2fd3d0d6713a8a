"""The training loop: an iterator of epochs over any distiller, exact under restart.

Everything that happens in optimizer step `s` of epoch `e` is a function of the state after the step
before and of `(seed, e, s)`: the order of the images, their views, and what dropout draws. A state
that is saved between any two steps therefore continues bit for bit (on the CPU).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from understudy.bank import Resident
from understudy.batch import Batch
from understudy.config.recipe import Training
from understudy.data.loader import Loader
from understudy.data.views import MemoryViews, counter_hash
from understudy.distillation.distiller import Distiller
from understudy.errors import Diverged, OutOfMemory, memory_ran_out
from understudy.functional import seeded, sum_dtype
from understudy.models.base import Wrapped
from understudy.profiling import span, spans
from understudy.training.batch_norm import enough_images
from understudy.training.cuda_graphs import CudaGraphs
from understudy.training.devices import ComputeSettings, share_measured
from understudy.training.finite import check_weights
from understudy.training.lr_schedule import learning_rate
from understudy.training.optimizers import fits_a_graph, make_optimizer, set_rate
from understudy.training.out_of_memory import StepSplitter
from understudy.training.update import Update, clip_norm

LOGGER = logging.getLogger("understudy")

_WAIT_EVERY = 16
"""Steps of a GPU of which one may wait for its results."""


@dataclass
class Position:
    """How far training has come.

    Attributes:
        epoch: Epochs that are done.
        step: Optimizer steps of the present epoch that are done.
        images: Images of these steps, of all processes.
        seconds: Time these steps took.
        sums: Losses by name, summed over these steps.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch.

    Attributes:
        number: Counted from 1.
        step: Optimizer steps since training began.
        seconds: Time of the epoch's steps, evaluation not included.
        images_per_second: Of all processes.
        lr: Learning rate of the last step.
        losses: Loss by name, and their weighted `total`: means over the steps.
    """

    number: int
    step: int
    seconds: float
    images_per_second: float
    lr: float
    losses: dict[str, float]


class Trainer:
    """Trains a distiller; its state can be saved and restored between any two steps.

    Args:
        distiller: Prepared student, teacher and methods, to which `settings` are applied already.
        loader: Training images.
        training: How to train.
        settings: How this machine computes.
        seed: Seed of dropout, and of methods that draw in a step.
        accelerator: Devices, processes and precision.
        resident: Gives the complete banks on the GPU, by their teachers' names; called only where
            steps are captured as CUDA graphs.
    """

    def __init__(
        self,
        distiller: Distiller,
        loader: Loader,
        training: Training,
        *,
        settings: ComputeSettings,
        seed: int,
        accelerator: Accelerator,
        resident: Callable[[], Mapping[str, Resident]] = dict,
    ) -> None:
        self.distiller, self.loader, self.training = distiller, loader, training
        self.settings, self.seed, self.accelerator = settings, seed, accelerator
        self.position = Position()
        self.ema = _moving_average(distiller.student, training.ema) if training.ema else None
        if training.compile:
            # In place, so that state dicts keep the names of the plain modules.
            distiller.trainable.compile()
            for each in distiller.distillations:
                each.teacher.compile()
        self.splitter = StepSplitter(distiller.trainable)
        self.optimizer = make_optimizer(distiller.trainable, training)
        if accelerator.num_processes > 1:
            # Before `prepare`, in which DistributedDataParallel reads what it is to ignore.
            share_measured(distiller.trainable)
        self._trainable, scaling = accelerator.prepare(distiller.trainable, self.optimizer)
        self._update = Update(
            distiller.trainable,
            # Accelerate's optimizer is for fp16; it looks for a package on disk at every step.
            scaling if accelerator.scaler else self.optimizer,
            clip=clip_norm(training, distiller.trainable, log=accelerator.is_main_process),
            accelerator=accelerator,
            student=distiller.student,
            average=self.ema,
        )
        self._loss_names: list[str] = []
        self._loss_sums = torch.zeros(())
        self._seeds: list[int] = []
        self._resident = resident() if self._capturable else {}
        self._graphs = self._make_graphs() if self._capturable else None

    @property
    def _capturable(self) -> bool:
        """True if steps can be CUDA graphs: one GPU, images in memory, no dropout."""
        draws = any(isinstance(m, nn.Dropout) and m.p for m in self.distiller.trainable.modules())
        return (
            self.settings.graphs
            and isinstance(self.loader.views, MemoryViews)
            and self.accelerator.num_processes == 1
            and self.training.accumulate == 1
            and fits_a_graph(self.optimizer)
            and not (draws or self.ema or self.accelerator.scaler)
            and not self.loader.mixing
        )

    def _make_graphs(self) -> CudaGraphs:
        # A launch sets no seed: what captured steps draw (CRD's negatives) is one sequence.
        torch.cuda.manual_seed(self.seed + 1)
        return CudaGraphs(
            loader=self.loader,
            optimizer=self.optimizer,
            losses=self._captured_losses,
            update=self._update,
            trainable=self.distiller.trainable,
            memory_format=self.settings.memory_format,
            device=self.accelerator.device,
        )

    @property
    def may_wait(self) -> bool:
        """True at steps that may wait for the device, or exchange more than gradients.

        A GPU works ahead of the host only as long as nothing waits for its results.
        """
        return self.accelerator.device.type == "cpu" or self.position.step % _WAIT_EVERY == 0

    @property
    def student(self) -> Wrapped:
        """Student to evaluate and deploy: the moving average, if there is one."""
        return cast(Wrapped, self.ema.module) if self.ema else self.distiller.student

    def fit(self, after_step: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
        """Train from the present position to the last epoch, and yield a record of each.

        Args:
            after_step: Called between steps; may save the state, or raise to leave training.

        Raises:
            Diverged: A loss, or a weight of the student, became NaN or infinite.
        """
        while self.position.epoch < self.training.epochs:
            yield self._epoch(after_step)

    def steps(self) -> Iterator[None]:
        """Do the optimizer steps that are left in this epoch; yield after each.

        With CUDA graphs, yield after each launch, which is up to sixteen steps.
        """
        self.distiller.train()
        sums = self.position.sums
        self._loss_names = list(sums)
        self._loss_sums = torch.tensor(
            list(sums.values()) or 0.0,
            dtype=sum_dtype(self.accelerator.device),
            device=self.accelerator.device,
        )
        if self._graphs is None:
            yield from self._single_steps()
        else:
            yield from self._launches(self._graphs)

    def _single_steps(self) -> Iterator[None]:
        position, rank = self.position, self.accelerator.process_index
        numbers = torch.arange(len(self.loader))
        self._seeds = counter_hash(self.seed, position.epoch, numbers, rank).tolist()
        # As if the epoch had begun so long ago: after a restart, earlier seconds count.
        started = time.perf_counter() - position.seconds
        for parts in spans("input", self.loader.epoch(position.epoch, start=position.step)):
            self._step(parts)
            position.step += 1
            position.images += sum(len(part) for part in parts) * self.accelerator.num_processes
            position.seconds = time.perf_counter() - started
            yield

    def _launches(self, graphs: CudaGraphs) -> Iterator[None]:
        position, epoch, steps_per_epoch = self.position, self.position.epoch, len(self.loader)
        started = time.perf_counter() - position.seconds
        lrs = [
            learning_rate(self.training, epoch * steps_per_epoch + step, steps_per_epoch)
            for step in range(steps_per_epoch)
        ]
        weights = {name: weight.at(epoch) for name, weight in self.distiller.weights.items()}
        for steps, images in graphs.epoch(epoch, position.step, lrs=lrs, weights=weights):
            position.step += steps
            position.images += images
            position.seconds = time.perf_counter() - started
            self._loss_names = graphs.names
            yield
        # Launches return at once; the epoch took as long as the device did.
        torch.cuda.synchronize(self.accelerator.device)
        position.seconds = time.perf_counter() - started

    def _captured_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch that lies on the device, without asking the host."""
        with self.accelerator.autocast():
            stored = {
                name: bank.read(batch.index, batch.view) for name, bank in self._resident.items()
            }
            teacher = self.distiller.observe_live(batch, stored=stored)
            losses: dict[str, Tensor] = self.distiller.trainable(batch, teacher)
        return losses

    def _epoch(self, after_step: Callable[[], None]) -> Epoch:
        position = self.position
        for _ in self.steps():
            after_step()
        self._check_finite()
        # No loss has seen the weights after the last step yet.
        check_weights(self.distiller.student, self.ema, position.epoch, self.accelerator)
        number, steps = position.epoch + 1, (position.epoch + 1) * len(self.loader)
        record = Epoch(
            number,
            steps,
            seconds=position.seconds,
            images_per_second=position.images / max(position.seconds, 1e-9),
            lr=learning_rate(self.training, steps - 1, len(self.loader)),
            losses=self.mean_losses(),
        )
        self.position = Position(epoch=number)
        # Without names there are no sums: a state saved between epochs starts the next one from 0.
        self._loss_names = []
        return record

    def _step(self, parts: list[Batch]) -> None:
        step = self.position.epoch * len(self.loader) + self.position.step
        set_rate(self.optimizer, learning_rate(self.training, step, len(self.loader)))
        # Ends: `double` raises an error when the parts cannot become smaller.
        while not self._add_gradients(self.splitter.split(parts)):
            LOGGER.warning(self.splitter.double(parts))
        # Before the update, so that no NaN enters the weights where every step may wait.
        with span("check"):
            if self.may_wait:
                self._check_finite()
        with span("optimizer"):
            self._update()

    def _add_gradients(self, parts: list[Batch]) -> bool:
        """Add up the gradients of a step; if memory runs out, undo everything and return False."""
        sums, size = self._loss_sums, sum(map(len, parts))
        self.splitter.save_statistics()
        # A seed for each step: dropout then draws the same after a restart, and a checkpoint holds
        # no state of a generator.
        seed = self._seeds[self.position.step]
        try:
            with seeded(seed, self.accelerator.device), enough_images(max(map(len, parts))):
                for number, part in enumerate(parts, 1):
                    last = number == len(parts)
                    # Processes exchange gradients once a step, with those of the last part.
                    with nullcontext() if last else self.accelerator.no_sync(self._trainable):
                        self._backward(part, share=len(part) / size)
            return True
        except (RuntimeError, MemoryError) as error:
            if not memory_ran_out(error):
                raise
            # The others wait in the exchange of gradients, and cannot repeat the step.
            if self.accelerator.num_processes > 1:
                raise OutOfMemory(self._no_split()) from error
        # The error is gone by now, and with it the activations that its traceback held.
        self._loss_sums = sums
        self.splitter.restore_statistics()
        self.optimizer.zero_grad()
        return False

    def _backward(self, batch: Batch, *, share: float) -> None:
        batch = batch.to(self.accelerator.device, self.settings.memory_format)
        with span("teacher"):
            teacher = self.distiller.observe(batch)
        with span("forward"):
            losses = self._trainable(batch, teacher)
            total = self.distiller.total(losses, self.position.epoch)
        with span("backward"):
            self.accelerator.backward(total * share)
        self._loss_names = [*losses, "total"]
        # In double precision, and on the device: `.item()` would wait for it in every step.
        values = torch.stack([*losses.values(), total]).detach().to(self._loss_sums.dtype)
        self._loss_sums = self._loss_sums + share * values

    def _no_split(self) -> str:
        parts = 2 * self.training.accumulate
        return (
            f"Memory ran out on one of {self.accelerator.num_processes} processes, which then can "
            f"only stop together: start again with training.accumulate {parts}."
        )

    def _check_finite(self) -> None:
        """Stop all processes if a loss of any was not finite: a finite sum had finite terms."""
        bad = [name for name, value in self._global_sums().items() if not math.isfinite(value)]
        if not bad:
            return
        # The total is not finite either then, but a term says more.
        culprit = next((name for name in bad if name != "total"), "total")
        raise Diverged(
            f"The loss '{culprit}' became NaN or infinite in epoch {self.position.epoch + 1}, "
            f"step {self.position.step + 1}. Lower training.lr or the weight of '{culprit}', "
            "or set training.clip; with fp16, try bf16."
        )

    def mean_losses(self) -> dict[str, float]:
        """Return the mean of every loss over this epoch's steps so far and over all processes."""
        steps = max(self.position.step, 1)
        return {name: value / steps for name, value in self._global_sums().items()}

    def _global_sums(self) -> dict[str, float]:
        """Sum every loss over this epoch's steps so far; the mean of these sums over processes."""
        if not self._loss_names:
            return {}
        if self._graphs is not None:
            self._loss_sums = self._loss_sums + self._graphs.take_sums()
        sums = self._loss_sums
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, reduction="mean")
        return dict(zip(self._loss_names, sums.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue exactly, in tensors and plain values.

        Raises:
            Diverged: A loss or a weight is NaN or infinite: the state is no use to continue from.
        """
        self._check_finite()
        check_weights(self.distiller.student, self.ema, self.position.epoch, self.accelerator)
        scaler = self.accelerator.scaler
        return {
            "position": asdict(self.position) | {"sums": self._global_sums()},
            "splitting": self.splitter.factor,
            "trainable": self.distiller.trainable.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": scaler.state_dict() if scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.position = Position(**state["position"])
        self.splitter.factor = state["splitting"]
        self.distiller.trainable.load_state_dict(state["trainable"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _moving_average(student: Wrapped, decay: float) -> AveragedModel:
    """Return an exponential moving average of a student's weights and statistics."""
    return AveragedModel(
        student,
        multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
