"""Mathematics that several methods share; results and gradients are finite for finite inputs."""

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
    """Scale rows to Euclidean length 1; a zero row stays zero and has gradient zero.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return x / norm_or_inf(x).unsqueeze(-1)


def norm(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Compute ‖x‖ of each row, clamped to at least `EPS`: safe to divide by and differentiate."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return length.clamp_min(EPS)


def norm_or_inf(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Compute ‖x‖ of each row; ∞ for a zero row, so that a quotient and its gradient are 0."""
    length = norm(x)
    return torch.where(length > EPS, length, torch.inf)


def cosine(x: Float[Tensor, "*rows dim"], y: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Compute the cosine of the angle between rows; 0 where either row is zero."""
    return (x * y).sum(-1) / norm_or_inf(x) / norm_or_inf(y)


def linear_no_grad(
    x: Float[Tensor, "rows inner"],
    weight: Float[Tensor, "outputs inner"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "rows outputs"]:
    """Compute `F.linear(x, weight, bias)` without a gradient.

    Float32 on a CPU goes through oneDNN, which PyTorch uses for convolutions: MKL, its library for
    matrix products, uses only half the vector width on CPUs of other makers than Intel.
    """
    cpu_float32 = x.device.type == "cpu" and x.dtype == torch.float32
    # The compiler selects a kernel itself, and accepts this operation only for constant weights.
    if cpu_float32 and _ONEDNN and x.numel() and not torch.compiler.is_compiling():
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y
    return F.linear(x, weight, bias)


@final
class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear_no_grad(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return linear_no_grad(grad, weight.T), linear_no_grad(grad.T, x.T), grad.sum(0)


def linear(
    x: Float[Tensor, "rows inner"],
    weight: Float[Tensor, "outputs inner"],
    bias: Float[Tensor, " outputs"],
) -> Float[Tensor, "rows outputs"]:
    """Compute `F.linear` with its gradient, all products by `linear_no_grad`."""
    y: Tensor = _Linear.apply(x, weight, bias)
    return y


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw random numbers from a seed, then let every generator continue where it was before.

    Args:
        seed: Seed of the CPU's generator, and of the GPU's if `device` is one.
        device: Device on which numbers are drawn beside the CPU.
    """
    on_gpu = device is not None and device.type == "cuda"
    on_mps = device is not None and device.type == "mps"
    # torch's own context manager knows no state of a Mac's GPU.
    state = torch.mps.get_rng_state() if on_mps else None
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # `torch.manual_seed` takes half a millisecond, and reseeds devices that are not restored.
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        if on_mps:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if state is not None:
                torch.mps.set_rng_state(state)


def double(x: Tensor) -> Tensor:
    """Return a tensor in float64; on the CPU if it lies on a Mac's GPU, which has no float64."""
    return x.cpu().double() if x.is_mps else x.double()


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the number format of long sums on a device: float64, or float32 on a Mac's GPU."""
    return torch.float32 if device.type == "mps" else torch.float64


def is_distributed() -> bool:
    """Return True if `torch.distributed` runs with more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def batch_mean(
    values: Float[Tensor, " rows *columns"], keep: Bool[Tensor, " rows"] | None = None
) -> Float[Tensor, "*columns"]:
    """Average the rows in `keep` over the *global* batch; 0 with zero gradient if there is none.

    Several means over the same rows are columns: processes then exchange one number for all.

    Under `torch.distributed` each process holds some of the rows. The result is scaled so that its
    average over processes, which DistributedDataParallel takes of the gradients, is the mean over
    all rows of all processes, however unevenly they are spread.
    """
    if keep is None:
        # `new_full` fills on the device; copying a Python number there would synchronise.
        total, count = values.sum(0), values.new_full((), len(values))
    else:
        stays = keep.view(-1, *[1] * (values.dim() - 1))
        total, count = torch.where(stays, values, 0).sum(0), keep.sum(dtype=values.dtype)
    if is_distributed():
        # This count divides a local sum, and DDP averages: total / (global count / processes).
        count = count / dist.get_world_size()
        dist.all_reduce(count)
    return total / count.clamp_min(EPS)


def global_sum(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sum over all processes, without a gradient."""
    total = values.detach().clone()
    if is_distributed():
        dist.all_reduce(total)
    return total


def rows_of_all_processes(rows: Tensor) -> Tensor:
    """Gather the rows of all processes, which may hold different numbers of rows."""
    if not is_distributed():
        return rows
    lengths = torch.zeros(dist.get_world_size(), dtype=torch.long, device=rows.device)
    lengths[dist.get_rank()] = len(rows)
    dist.all_reduce(lengths)
    # `all_gather` needs tensors of one size in all processes.
    padded = rows.new_zeros(int(lengths.max()), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(gathered, padded)
    return torch.cat([each[:n] for each, n in zip(gathered, lengths.tolist(), strict=True)])


def kl_divergence(
    student: Float[Tensor, "rows classes"],
    teacher: Float[Tensor, "rows classes"],
    temperature: float = 1.0,
) -> Float[Tensor, " rows"]:
    """Compute KL(softmax(teacher / T) ‖ softmax(student / T)) of each row, without a factor T²."""
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(-1)


def binary_kl_divergence(
    student: Float[Tensor, "rows classes"],
    teacher: Float[Tensor, "rows classes"],
    temperature: float = 1.0,
) -> Float[Tensor, "rows classes"]:
    """Compute KL(σ(teacher / T) ‖ σ(student / T)) of each class, without a factor T².

    Each class is a distribution of its own over present and absent.
    """
    s, t = student / temperature, teacher / temperature
    present = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    return present + (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))


LEAST_FOR_CKA = 40
"""Images below which linear CKA says nothing: the fewer they are, the more alike all features look.

The centred Gram matrix of n images has a rank of n − 1 at most, so that of two images any features
have a CKA of 1, and of one it is 0 / 0. With each image of the one network beside a wrong image of
the other, a trained and a random (a trained) ResNet have a CKA of 0.54 (0.82) on 10 images of
CIFAR-100, 0.24 (0.56) on 40, and 0.02 (0.05) on 1,000.
"""


def linear_cka(x: Float[Tensor, "rows dim_x"], y: Float[Tensor, "rows dim_y"]) -> float | None:
    """Compute linear centred kernel alignment of features of the same images, in [0, 1].

    Kornblith et al. 2019: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) on centred columns, Frobenius norms. None for
    fewer than `LEAST_FOR_CKA` images.
    """
    if len(x) < LEAST_FOR_CKA:
        return None
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).square().sum() / scale.clamp_min(EPS))
