"""Small pieces of mathematics that several methods share; finite wherever their inputs are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-12
"""Lower clamp of every Euclidean norm that divides."""

_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def unit(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """Rows scaled to length one; a zero row stays zero and gets a zero gradient.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return x / divisor(x).unsqueeze(-1)


def norm(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Euclidean length of each row, at least `EPS`; safe to divide by and to differentiate."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return length.clamp_min(EPS)


def divisor(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """‖x‖ of each row; infinite for a zero row, whose quotients then have value and slope 0."""
    length = norm(x)
    return torch.where(length > EPS, length, torch.inf)


def cosine(x: Float[Tensor, "*rows dim"], y: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Cosine of the angle between rows; 0 where either row is zero."""
    return (x * y).sum(-1) / divisor(x) / divisor(y)


def product(
    x: Float[Tensor, "rows inner"],
    weight: Float[Tensor, "outputs inner"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "rows outputs"]:
    """`F.linear` as a plain number, without a gradient.

    In float32 on a CPU by oneDNN, which PyTorch uses for convolutions. The library it uses for
    matrices fills only half of the vectors of processors that are not its maker's.
    """
    single = x.device.type == "cpu" and x.dtype == torch.float32
    # A compiler chooses for itself, and takes this operation for constant weights alone.
    if single and _ONEDNN and x.numel() and not torch.compiler.is_compiling():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return F.linear(x, weight, bias)


@final
class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return product(grad, weight.T), product(grad.T, x.T), grad.sum(0)


def linear(
    x: Float[Tensor, "rows inner"],
    weight: Float[Tensor, "outputs inner"],
    bias: Float[Tensor, " outputs"],
) -> Float[Tensor, "rows outputs"]:
    """`F.linear` by `product`, with its gradient."""
    found: Tensor = _Linear.apply(x, weight, bias)
    return found


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw random numbers from a seed, then let every generator continue where it was before.

    Args:
        seed: Seed of the CPU's generator, and of the GPU's if `device` is one.
        device: Device on which numbers are drawn beside the CPU.
    """
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # `torch.manual_seed` takes half a millisecond, and reseeds devices that are not restored.
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


def several_processes() -> bool:
    """Whether `torch.distributed` runs, with more processes than this one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def batch_mean(
    values: Float[Tensor, " rows"], keep: Bool[Tensor, " rows"] | None = None
) -> Float[Tensor, ""]:
    """Mean over the rows to keep of the *global* batch; 0 with zero gradient if none is kept.

    Under `torch.distributed` each process holds some rows. The value returned is scaled so that
    the average over processes, which is what DistributedDataParallel takes of the gradients, is
    the mean over all rows of all processes, however unevenly they are spread.
    """
    if keep is None:
        # Filled on the device: a tensor made of a Python number would make the device wait.
        total, count = values.sum(), values.new_full((), len(values))
    else:
        total, count = torch.where(keep, values, 0).sum(), keep.sum(dtype=values.dtype)
    if several_processes():
        count = count / dist.get_world_size()
        dist.all_reduce(count)
    return total / count.clamp_min(EPS)


def global_sum(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sum of a constant over all processes; it has no gradient."""
    total = values.detach().clone()
    if several_processes():
        dist.all_reduce(total)
    return total


def kl_divergence(
    student: Float[Tensor, "rows classes"],
    teacher: Float[Tensor, "rows classes"],
    temperature: float = 1.0,
) -> Float[Tensor, " rows"]:
    """KL(softmax(teacher / T) ‖ softmax(student / T)) of each row, without the factor T²."""
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(-1)


def binary_kl_divergence(
    student: Float[Tensor, "rows classes"],
    teacher: Float[Tensor, "rows classes"],
    temperature: float = 1.0,
) -> Float[Tensor, "rows classes"]:
    """KL of every class by itself, present or absent: σ(student / T) from σ(teacher / T).

    Without the factor T².
    """
    s, t = student / temperature, teacher / temperature
    present = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    return present + (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))


def linear_cka(x: Float[Tensor, "rows dim_x"], y: Float[Tensor, "rows dim_y"]) -> float:
    """Linear centred kernel alignment of two sets of features of the same images, in [0, 1].

    Kornblith et al. 2019: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) on centred columns, Frobenius norms.
    """
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).square().sum() / scale.clamp_min(EPS))
