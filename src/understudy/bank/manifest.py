"""The contract of a bank: what its records depend on, and how many bytes they take."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

from understudy.bank.codecs import Codec, DType, Scales, make_codec
from understudy.errors import BankError

CHECK_BYTES = 4
"""Bytes of a record's checksum."""


@dataclass(frozen=True)
class Contract:
    """Everything the records of a bank depend on; a record is replayed only if all of it is equal.

    Attributes:
        teacher: Digest of the teacher's weights.
        input: The teacher's input contract: size, mean, deviation and interpolation.
        precision: Arithmetic of the teacher's forward pass.
        images: Digest of the images and their order.
        transform: Description of the augmentation, with its seed where it has one.
        num_images: Number of images.
        num_views: Views of each image; the one value that may differ, because a bank can grow.
        features: Name → shape of the teacher's features that are stored.
        dtype: How numbers are stored.
        top_logits: Number of the largest logits that are stored; None for all.
        scales: Scales of `int8`; an old bank keeps its own.
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
    # Not in the text form, by which banks of codes that were stored before are known.
    scales: Scales = field(default="row", repr=False)

    @cached_property
    def codecs(self) -> dict[str, Codec]:
        """Name → codec of each feature, in the order of a record: sorted by name."""
        return {name: self._codec(name, shape) for name, shape in sorted(self.features.items())}

    def _codec(self, name: str, shape: tuple[int, ...]) -> Codec:
        top = self.top_logits if name == "logits" else None
        return make_codec(shape, self.dtype, top, self.scales)

    def as_stored(self, stored: Mapping[str, Any]) -> "Contract":
        """Return the contract with the scales of a bank that exists, from its manifest.

        Raises:
            BankError: They are of no known kind.
        """
        scales = stored.get("scales", "row")
        if scales not in get_args(Scales):
            raise BankError(
                f"A bank has scales of int8 for each {scales!r}, which this version does not know."
            )
        return replace(self, scales=scales)

    @property
    def record_bytes(self) -> int:
        """Bytes of one record, without its checksum."""
        return sum(codec.bytes for codec in self.codecs.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes that one record takes: its own, and its checksum."""
        return self.record_bytes + CHECK_BYTES

    @property
    def records(self) -> int:
        """Records of a complete bank."""
        return self.num_images * self.num_views

    @property
    def bytes(self) -> int:
        """Bytes of a complete bank, checksums included."""
        return self.records * self.stored_bytes

    def bytes_after(self, epochs: int) -> int:
        """Return the bytes of what training stores in so many epochs: of each a view per image."""
        return self.num_images * min(self.num_views, epochs) * self.stored_bytes


def refuse_other(stored: Mapping[str, Any], expected: Mapping[str, Any], place: str) -> None:
    """Refuse a bank whose manifest differs from what is expected, but for the number of views.

    Args:
        stored: Content of `manifest.json`.
        expected: Key → value that it must have.
        place: Directory or address of the bank.

    Raises:
        BankError: A value differs; both are named.
    """
    # As JSON returns it: lists for tuples.
    for key, value in json.loads(json.dumps(expected)).items():
        if key not in _MAY_DIFFER and stored.get(key) != value:
            raise BankError(
                f"The bank {place} was filled with another {_NAMES.get(key, key)}: "
                f"{_line(stored.get(key))} there, {_line(value)} here. Name another folder "
                "by bank.path."
            )


def _line(value: Any) -> str:
    """Return a value in one line; descriptions of some transforms have several."""
    return " ".join(str(value).split())


_MAY_DIFFER = {"num_views", "scales"}
"""A bank can grow by views, and keeps the scales that it was made with."""

_NAMES = {
    "num_images": "number of images",
    "top_logits": "number of logits",
    "shard": "division into shards",
}
