"""The network to learn from: frozen, and in evaluation mode at every pass."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import NetworkError
from understudy.features import Features, Locations, Observation
from understudy.models.base import Wrapped


@final
class Teacher(nn.Module):
    """A frozen network: always in evaluation mode, never part of a gradient.

    Attributes:
        network: Network to learn from.
        precision: Dtype of the forward pass; None for that of the weights.
    """

    def __init__(self, network: Wrapped) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.precision: torch.dtype | None = None
        # In a tuple, so that no copy counts as a part of this module.
        self._fast: tuple[Wrapped, ...] = ()
        self._frozen = False

    def freeze(self, precision: torch.dtype | None) -> None:
        """Freeze the precision, the weights and the device, so that `at` may use a faster copy.

        Moving the teacher or changing its weights afterwards has no effect on that copy.

        Args:
            precision: Dtype of the forward pass; None for that of the weights.
        """
        self.precision, self._fast, self._frozen = precision, (), True

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode when the module around it is switched to training."""
        return super().train(False)

    def keep_evaluating(self) -> None:
        """Set evaluation mode again, as the user's code may have left the network in another."""
        # Inside of a compiled pass the modes are constants, and `Distiller` has set them before.
        if not torch.compiler.is_compiling() and any(m.training for m in self.network.modules()):
            self.network.eval()

    # `no_grad`, not `inference_mode`: a squared error keeps the teacher's tensor for its backward.
    @torch.no_grad()
    def forward(self, batch: Batch) -> Features:
        """Return features of whole images."""
        self.keep_evaluating()
        with self._autocast(batch.images.device.type):
            return self.network.observe(batch).features

    @torch.no_grad()
    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Return features at the locations where a student was observed; see `Wrapped.at`."""
        with self.evaluating() as network:
            return network.at(locations, reads)

    @contextmanager
    def evaluating(self) -> Iterator[Wrapped]:
        """Yield the network in evaluation mode and in its precision, or its faster copy."""
        self.keep_evaluating()
        with self._autocast(self.network.device.type):
            if not self._fast:
                network = self.network
                # Not before it is read: teachers of whole images never need the copy.
                self._fast = (network.frozen(self.precision) if self._frozen else network,)
            yield self._fast[0]

    @torch.no_grad()
    def observe_for_prepare(self, batch: Batch, student: Wrapped) -> Observation:
        """Return features at the locations where the teacher itself would look."""
        self.keep_evaluating()
        with self._autocast(batch.images.device.type):
            return self.network.observe_for_prepare(batch, student)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Features:
        """Return what metrics of the teacher are computed from; see `Wrapped.outputs`."""
        self.keep_evaluating()
        with self._autocast(batch.images.device.type):
            return self.network.outputs(batch)

    def refuse_not_finite(self, features: Mapping[str, Tensor]) -> None:
        """Refuse features of the teacher that nothing can be learnt from.

        Raises:
            NetworkError: One holds NaN or infinity.
        """
        bad = [name for name, x in features.items() if not bool(x.isfinite().all())]
        if bad:
            raise NetworkError(self.not_finite(bad[0]))

    def not_finite(self, feature: str) -> str:
        """Return the sentence for a teacher whose feature is not finite: whose fault it may be."""
        precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(
            self.precision or torch.float32, "fp32"
        )
        fix = "check teacher.weights and the sizes and normalisation of its input"
        if self.precision is torch.float16:
            fix = "they exceed what fp16 holds; set training.teacher_precision to bf16 or fp32"
        return (
            f"The teacher {self.network.name} gives NaN or infinity in {feature}, computed in "
            f"{precision}: {fix}."
        )

    def _autocast(self, device: str) -> torch.autocast:
        return torch.autocast(device, dtype=self.precision, enabled=self.precision is not None)
