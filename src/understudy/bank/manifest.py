"""What the records of a bank depend on, and how many bytes they take."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

from understudy.bank.codecs import DType, Form, form

CHECK_BYTES = 4


@dataclass(frozen=True)
class Contract:
    """What the records of a bank depend on: all of it must be equal for a record to be replayed.

    Attributes:
        teacher: Digest of the teacher's weights.
        input: The teacher's size, mean, deviation and interpolation.
        precision: Arithmetic of the teacher's forward pass.
        images: Digest of the images and their order.
        transform: What makes a view of an image, its seed included where it has one.
        num_images: How many images there are.
        num_views: Views of each; the one number that may differ, because a bank grows.
        features: Name → shape of what is stored of the teacher's outputs.
        dtype: How numbers are stored.
        top_logits: How many of the largest logits are stored; None for all.
    """

    teacher: str
    input: str
    precision: str
    images: str
    transform: str
    num_images: int
    num_views: int
    features: dict[str, tuple[int, ...]]
    dtype: DType = "fp32"
    top_logits: int | None = None

    @cached_property
    def forms(self) -> dict[str, Form]:
        """How each feature is stored, in the order of a record: that of the names."""
        return {
            name: form(prod(shape), self.dtype, self.top_logits if name == "logits" else None)
            for name, shape in sorted(self.features.items())
        }

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return sum(form.bytes for form in self.forms.values())

    @property
    def records(self) -> int:
        """How many records a complete table has."""
        return self.num_images * self.num_views

    @property
    def bytes(self) -> int:
        """Bytes of a complete table, checksums included."""
        return self.records * (self.record_bytes + CHECK_BYTES)
