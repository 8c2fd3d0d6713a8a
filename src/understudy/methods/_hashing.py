"""Hash bits of the teacher, eight a byte, and the loss that compares the student with them.

    a = f_s Wᵀ + b,    h = 1[ f_t Wᵀ + b > 0 ],    rowsᵢ = 1/N Σⱼ [ softplus(aᵢⱼ) − hᵢⱼ aᵢⱼ ]

f_s, f_t ∈ R^{B×D} are the features of student and teacher, W ∈ R^{N×D} the directions and b ∈ R^N
the offsets of the hashes, which have no gradient.
"""

from math import gcd
from typing import Any, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from understudy.functional import product


def bits(
    teacher: Float[Tensor, "batch dim"],
    weight: Float[Tensor, "hashes dim"],
    bias: Float[Tensor, " hashes"],
) -> UInt8[Tensor, "batch hashes"]:
    """h: 1 on the positive side of a plane, 0 on it or beyond."""
    # Not bool: PyTorch has no vector operations that make or read one.
    return product(teacher, weight, bias).gt_(0).to(torch.uint8)


def bce(
    student: Float[Tensor, "batch dim"],
    bits: UInt8[Tensor, "batch hashes"],
    weight: Float[Tensor, "hashes dim"],
    bias: Float[Tensor, " hashes"],
    precision: torch.dtype | None = None,
) -> Float[Tensor, " batch"]:
    """Mean over the hashes of softplus(a) − h a of each row; hashes have no gradient.

    Args:
        student: Features f_s.
        bits: h, 0 or 1.
        weight: W.
        bias: b.
        precision: Arithmetic of both matrix products, if not that of the features.
    """
    lower = precision or student.dtype
    rows: Tensor = _BCE.apply(student, bits, weight.to(lower), bias.to(lower))
    return rows


@final
class _BCE(torch.autograd.Function):
    """Two matrix products, and between them two tables of B x N, changed in place.

    With z = 1 − 2h, softplus(a) − h a = softplus(z a), whose slope is z sigmoid(z a). New memory
    costs a CPU more time than arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = h.to(s.dtype).mul_(-2).add_(1)
        a = product(s.to(weight.dtype), weight, bias).to(s.dtype).mul_(z)
        slope = a.sigmoid()
        ctx.save_for_backward(z.mul_(slope), weight)
        return _softplus_mean(a, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        slope, weight = ctx.saved_tensors
        along = product(slope.to(weight.dtype), weight.T).to(slope.dtype)
        return along.mul_(grad.unsqueeze(1) / len(weight)), None, None, None


def _softplus_mean(x: Tensor, sigmoid: Tensor) -> Float[Tensor, " batch"]:
    """Mean of softplus(x) = max(x, 0) − log max(σ, 1 − σ) of each row, given σ; overwrites both.

    What the logarithm is taken of lies in [½, 1], so that it is taken once for the product of 64.
    """
    hashes = x.shape[1]
    positive = x.relu_().sum(1)
    far = sigmoid.sub_(0.5).abs_().add_(0.5)
    logarithms = torch.unflatten(far, 1, (-1, gcd(hashes, 64))).prod(2).log_().sum(1)
    return (positive - logarithms) / hashes


def pack(bits: UInt8[Tensor, "batch hashes"]) -> UInt8[Tensor, "batch bytes"]:
    """Eight hashes a byte; missing ones are zero.

    Hash j is bit j // n of byte j % n, where n are the bytes: unpacking is then a few operations
    on whole rows, a fraction of what neighbours in one byte would take.
    """
    whole = F.pad(bits, (0, -bits.shape[1] % 8))
    return (torch.unflatten(whole, 1, (8, -1)) * _places(bits.device)).sum(1, dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, "batch bytes"], hashes: int) -> UInt8[Tensor, "batch hashes"]:
    """The bits behind `pack`."""
    planes = (packed.unsqueeze(1) & _places(packed.device)).clamp_(max=1)
    return planes.flatten(1)[:, :hashes]


def _places(device: torch.device) -> UInt8[Tensor, "8 1"]:
    place = torch.arange(8, dtype=torch.uint8, device=device).unsqueeze(1)
    return torch.ones_like(place) << place
