"""Forms in which one feature is stored: as bytes, and back.

    fp32       bit for bit
    fp16       11 significant bits, up to 65,504
    int8       xᵢ ≈ s qᵢ,  s = maxᵢ |xᵢ| / 127,  qᵢ ∈ {−127, …, 127}: one scale for each row
    top-k      the k largest logits and z = log Σ exp of the rest, each of which comes back as
               z − log(n − k): a softmax that is right on the k and even over the rest
    bits       bytes as they are: codes that a method has packed

Every form takes a multiple of four bytes, so that a number of any form lies where it can be read.
"""

from abc import ABC, abstractmethod
from math import log
from typing import Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

DType = Literal["fp32", "fp16", "int8", "bits"]
Rows = UInt8[Tensor, "batch bytes"]
"""Stored features, one row for each image; `bytes` is that of their form."""


class Form(ABC):
    """How `width` numbers are stored."""

    def __init__(self, width: int) -> None:
        self.width = width

    @property
    @abstractmethod
    def bytes(self) -> int:
        """How many bytes a row takes."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """The bytes of some rows; what is not finite does not come back finite either."""

    @abstractmethod
    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """The rows that some bytes stand for, in float32."""


@final
class Floats(Form):
    """Numbers of 32 or 16 bits."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__(width)
        self.dtype = dtype

    @property
    def bytes(self) -> int:
        """How many bytes a row takes."""
        return _whole(self.width * self.dtype.itemsize)

    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """The bytes of some rows."""
        return _padded(_bytes(x.to(self.dtype)), self.bytes)

    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """The rows that some bytes stand for."""
        return rows.view(self.dtype)[:, : self.width].to(torch.float32).contiguous()


@final
class Scaled(Form):
    """Integers of 8 bits, and the scale of their row."""

    @property
    def bytes(self) -> int:
        """How many bytes a row takes."""
        return 4 + _whole(self.width)

    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """The bytes of some rows; a row of zeros stays one."""
        scale = x.float().abs().amax(1, keepdim=True) / 127
        levels = (x / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
        return _padded(torch.cat([_bytes(scale), _bytes(levels)], dim=1), self.bytes)

    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """The rows that some bytes stand for."""
        levels = rows[:, 4 : 4 + self.width].view(torch.int8)
        return levels * rows[:, :4].view(torch.float32)


@final
class Top(Form):
    """The `kept` largest of some logits, and what all others have in common."""

    def __init__(self, width: int, dtype: torch.dtype, kept: int) -> None:
        super().__init__(width)
        self.kept = kept
        self.values = Floats(kept, dtype)
        self.places = torch.int16 if width <= torch.iinfo(torch.int16).max else torch.int32

    @property
    def bytes(self) -> int:
        """How many bytes a row takes."""
        return 4 + self.values.bytes + _whole(self.kept * self.places.itemsize)

    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """The bytes of some rows."""
        values, places = x.float().topk(self.kept)
        rest = x.float().scatter(1, places, -torch.inf).logsumexp(1, keepdim=True)
        parts = _bytes(rest), self.values.encode(values), _bytes(places.to(self.places))
        return _padded(torch.cat(parts, dim=1), self.bytes)

    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """The rows that some bytes stand for."""
        rest, values, places = rows.tensor_split([4, 4 + self.values.bytes], dim=1)
        each = rest.view(torch.float32) - log(self.width - self.kept)
        index = places.view(self.places)[:, : self.kept].long()
        every = each.expand(-1, self.width)
        return every.scatter(1, index, self.values.decode(values))


@final
class Bits(Form):
    """Codes that a method has packed into bytes, which come back as bytes."""

    @property
    def bytes(self) -> int:
        """How many bytes a row takes."""
        return _whole(self.width)

    def encode(self, x: UInt8[Tensor, "batch width"]) -> Rows:
        """The bytes of some rows."""
        return _padded(x, self.bytes)

    def decode(self, rows: Rows) -> UInt8[Tensor, "batch width"]:
        """The same bytes."""
        return rows[:, : self.width].contiguous()


def form(width: int, dtype: DType, top: int | None = None) -> Form:
    """The form of a feature; `top` is how many logits are kept, if this is one and not all are."""
    if dtype == "bits":
        return Bits(width)
    if top is not None and top < width:
        return Top(width, torch.float32 if dtype == "fp32" else torch.float16, top)
    if dtype == "int8":
        return Scaled(width)
    return Floats(width, torch.float32 if dtype == "fp32" else torch.float16)


def _whole(count: int) -> int:
    return -(-count // 4) * 4


def _bytes(x: Tensor) -> Rows:
    return x.flatten().view(torch.uint8).reshape(len(x), x.shape[1] * x.itemsize)


def _padded(rows: Rows, count: int) -> Rows:
    return torch.nn.functional.pad(rows, (0, count - rows.shape[1]))
