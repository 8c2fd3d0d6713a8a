"""Codecs: how one feature is stored as bytes, and read again.

    fp32       every bit
    fp16       11 significant bits, up to 65,504
    int8       xᵢ ≈ s qᵢ,  s = maxᵢ |xᵢ| / 127,  qᵢ ∈ {−127, …, 127}: one scale for each row, or
               for each channel of a map or of tokens
    top-k      the k largest logits and z = log Σ exp of the others, each of which comes back as
               z − log(n − k): a softmax that is exact on the k and uniform over the others
    bits       bytes unchanged: codes that a method has packed

Every codec takes a multiple of four bytes, so that the numbers of the next one are aligned.
"""

from abc import ABC, abstractmethod
from math import log, prod
from typing import Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

DType = Literal["fp32", "fp16", "int8", "bits"]
Scales = Literal["row", "channel"]
"""Scales of `int8`: one for each row, or one for each channel of a map or of tokens."""

_LEAST = 32
"""Numbers of a channel that get a scale of their own, at least: it takes as much room as four."""

Rows = UInt8[Tensor, "batch bytes"]
"""Stored features, one row for each image; `bytes` as their codec says."""


class Codec(ABC):
    """Encodes rows of `width` numbers as bytes.

    Args:
        width: Numbers of a row.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes of a row."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """Encode rows; one with a NaN or an infinite number must not be decoded as finite."""

    @abstractmethod
    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """Decode rows, to float32."""


@final
class FloatCodec(Codec):
    """Stores numbers in 32 or 16 bits."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__(width)
        self.dtype = dtype

    @property
    def bytes(self) -> int:
        """Bytes of a row."""
        return _multiple_of_4(self.width * self.dtype.itemsize)

    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """Encode rows."""
        return _padded(_bytes(x.to(self.dtype)), self.bytes)

    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """Decode rows, to float32."""
        return rows.view(self.dtype)[:, : self.width].to(torch.float32).contiguous()


@final
class Int8Codec(Codec):
    """Stores numbers in 8 bits, with one scale for each channel.

    Args:
        before: Numbers of a channel that lie apart, such as tokens.
        channels: Number of channels; 1 has one scale for the whole row.
        behind: Numbers of a channel that lie together, such as the pixels of a map.
    """

    def __init__(self, before: int, channels: int, behind: int) -> None:
        super().__init__(before * channels * behind)
        self._shape, self._scales = (before, channels, behind), 4 * channels

    @property
    def bytes(self) -> int:
        """Bytes of a row."""
        return self._scales + _multiple_of_4(self.width)

    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """Encode rows; a channel of zeros stays zero."""
        parts = x.float().reshape(len(x), *self._shape)
        scale = parts.abs().amax((1, 3), keepdim=True) / 127
        # Channels of zeros: 0 / tiny is 0, where 0 / 0 would be NaN.
        levels = (parts / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
        return _padded(
            torch.cat([_bytes(scale.flatten(1)), _bytes(levels.flatten(1))], dim=1), self.bytes
        )

    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """Decode rows, to float32."""
        scale = rows[:, : self._scales].contiguous().view(torch.float32)
        levels = rows[:, self._scales : self._scales + self.width].view(torch.int8)
        parts = levels.reshape(len(rows), *self._shape) * scale.view(
            len(rows), 1, self._shape[1], 1
        )
        return parts.flatten(1)


@final
class TopLogitsCodec(Codec):
    """Stores the `kept` largest logits and where they are; all others share one number."""

    def __init__(self, width: int, dtype: torch.dtype, kept: int) -> None:
        super().__init__(width)
        self.kept = kept
        self.values = FloatCodec(kept, dtype)
        # int16 halves the indices, and fits for ImageNet's 1000 and even 21,841 classes.
        self.class_dtype = torch.int16 if width <= torch.iinfo(torch.int16).max else torch.int32

    @property
    def bytes(self) -> int:
        """Bytes of a row."""
        return 4 + self.values.bytes + _multiple_of_4(self.kept * self.class_dtype.itemsize)

    def encode(self, x: Float[Tensor, "batch width"]) -> Rows:
        """Encode rows."""
        values, classes = x.float().topk(self.kept)
        rest = x.float().scatter(1, classes, -torch.inf).logsumexp(1, keepdim=True)
        parts = _bytes(rest), self.values.encode(values), _bytes(classes.to(self.class_dtype))
        return _padded(torch.cat(parts, dim=1), self.bytes)

    def decode(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """Decode rows, to float32."""
        rest, values, classes = rows.tensor_split([4, 4 + self.values.bytes], dim=1)
        # Evenly over the n − k others, so that their probabilities sum to what they had.
        other_logit = rest.view(torch.float32) - log(self.width - self.kept)
        index = classes.view(self.class_dtype)[:, : self.kept].long()
        logits = other_logit.expand(-1, self.width)
        return logits.scatter(1, index, self.values.decode(values))


@final
class BytesCodec(Codec):
    """Stores bytes unchanged: codes that a method has packed."""

    @property
    def bytes(self) -> int:
        """Bytes of a row."""
        return _multiple_of_4(self.width)

    def encode(self, x: UInt8[Tensor, "batch width"]) -> Rows:
        """Encode rows."""
        return _padded(x, self.bytes)

    def decode(self, rows: Rows) -> UInt8[Tensor, "batch width"]:
        """Return the same bytes."""
        return rows[:, : self.width].contiguous()


def make_codec(
    shape: tuple[int, ...], dtype: DType, top: int | None = None, scales: Scales = "row"
) -> Codec:
    """Return the codec of one feature.

    Args:
        shape: Shape of the feature: a vector, tokens (tokens, dim) or a map (channels, …).
        dtype: `bank.dtype` of the recipe, or `bits`.
        top: Largest values that are kept, for logits; None for all.
        scales: Scales of `int8`.
    """
    width = prod(shape)
    if dtype == "bits":
        return BytesCodec(width)
    if top is not None and top < width:
        return TopLogitsCodec(width, torch.float32 if dtype == "fp32" else torch.float16, top)
    if dtype == "int8":
        return Int8Codec(*(_channels(shape) if scales == "channel" else (1, 1, width)))
    return FloatCodec(width, torch.float32 if dtype == "fp32" else torch.float16)


def _channels(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the channels of a feature that get a scale each, and how their numbers lie."""
    if len(shape) == 3 and shape[1] * shape[2] >= _LEAST:
        return 1, shape[0], shape[1] * shape[2]
    if len(shape) == 2 and shape[0] >= _LEAST:
        return shape[0], shape[1], 1
    return 1, 1, prod(shape)


def _multiple_of_4(count: int) -> int:
    return -(-count // 4) * 4


def _bytes(x: Tensor) -> Rows:
    return x.flatten().view(torch.uint8).reshape(len(x), x.shape[1] * x.itemsize)


def _padded(rows: Rows, count: int) -> Rows:
    return torch.nn.functional.pad(rows, (0, count - rows.shape[1]))
