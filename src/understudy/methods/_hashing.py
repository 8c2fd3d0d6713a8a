"""The teacher's hash bits, packed eight to a byte, and the loss of the student against them.

    a = f_s Wᵀ + b,    h = 1[ f_t Wᵀ + b > 0 ],    rowsᵢ = 1/N Σⱼ [ softplus(aᵢⱼ) − hᵢⱼ aᵢⱼ ]

f_s, f_t ∈ R^{B×D} are the features of student and teacher, W ∈ R^{N×D} and b ∈ R^N the directions
and offsets of the hashes, which have no gradient.
"""

from math import gcd
from typing import Any, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from understudy.functional import linear_no_grad


def bits(
    teacher: Float[Tensor, "batch dim"],
    weight: Float[Tensor, "hashes dim"],
    bias: Float[Tensor, " hashes"],
) -> UInt8[Tensor, "batch hashes"]:
    """Compute h: 1 on the positive side of a hyperplane, 0 on it or on the negative side."""
    # uint8, not bool: PyTorch has no vectorised kernels that write or read bool.
    return linear_no_grad(teacher, weight, bias).gt_(0).to(torch.uint8)


def bce(
    student: Float[Tensor, "batch dim"],
    bits: UInt8[Tensor, "batch hashes"],
    weight: Float[Tensor, "hashes dim"],
    bias: Float[Tensor, " hashes"],
    precision: torch.dtype | None = None,
) -> Float[Tensor, " batch"]:
    """Average softplus(a) − h a over the hashes of each row; hashes have no gradient.

    Args:
        student: Features f_s.
        bits: h, 0 or 1.
        weight: W.
        bias: b.
        precision: Data type of both matrix products; default: that of the features.
    """
    lower = precision or student.dtype
    rows: Tensor = _BCE.apply(student, bits, weight.to(lower), bias.to(lower))
    return rows


@final
class _BCE(torch.autograd.Function):
    """Two matrix products, with two B×N tensors between them that are updated in place.

    With z = 1 − 2h, softplus(a) − h a = softplus(z a), whose derivative by a is z sigmoid(z a). On
    a CPU, allocating memory takes more time than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = h.to(s.dtype).mul_(-2).add_(1)
        a = linear_no_grad(s.to(weight.dtype), weight, bias).to(s.dtype).mul_(z)
        slope = a.sigmoid()
        ctx.save_for_backward(z.mul_(slope), weight)
        return _softplus_mean(a, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        slope, weight = ctx.saved_tensors
        d_student = linear_no_grad(slope.to(weight.dtype), weight.T).to(slope.dtype)
        return d_student.mul_(grad.unsqueeze(1) / len(weight)), None, None, None


def _softplus_mean(x: Tensor, sigmoid: Tensor) -> Float[Tensor, " batch"]:
    """Average softplus(x) = max(x, 0) − log max(σ, 1 − σ) over each row; overwrites x and σ.

    The argument of the logarithm lies in [½, 1]: a product of 64 of them cannot underflow, so that
    one logarithm serves 64 elements.
    """
    hashes = x.shape[1]
    positive = x.relu_().sum(1)
    # max(σ, 1 − σ) = |σ − ½| + ½
    larger = sigmoid.sub_(0.5).abs_().add_(0.5)
    logarithms = torch.unflatten(larger, 1, (-1, gcd(hashes, 64))).prod(2).log_().sum(1)
    return (positive - logarithms) / hashes


def pack(bits: UInt8[Tensor, "batch hashes"]) -> UInt8[Tensor, "batch bytes"]:
    """Pack eight hash bits into a byte; the last bits are padded with zeros.

    Of n bytes a row, hash j is bit j // n of byte j % n. Unpacking then works on contiguous rows,
    and takes a fraction of the time it would take if eight neighbours shared a byte.
    """
    whole = F.pad(bits, (0, -bits.shape[1] % 8))
    values = _bit_values(bits.device)
    return (torch.unflatten(whole, 1, (8, -1)) * values).sum(1, dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, "batch bytes"], hashes: int) -> UInt8[Tensor, "batch hashes"]:
    """Invert `pack`."""
    planes = (packed.unsqueeze(1) & _bit_values(packed.device)).clamp_(max=1)
    return planes.flatten(1)[:, :hashes]


def _bit_values(device: torch.device) -> UInt8[Tensor, "8 1"]:
    """Compute 1, 2, 4, …, 128."""
    position = torch.arange(8, dtype=torch.uint8, device=device).unsqueeze(1)
    return torch.ones_like(position) << position
