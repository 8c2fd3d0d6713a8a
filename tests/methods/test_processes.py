"""Two processes with unequal shares of the batch learn what one with all of it learns."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import start_processes

from tests.support.forms import shapes
from tests.vectors.build import batch
from understudy.methods._standardise import Standardiser
from understudy.methods.lshfm import LSHFM
from understudy.methods.queue_kl import QueueKL
from understudy.methods.unic import shares

FLAT = shapes("net", penultimate=4, logits=3)
SHARES = (slice(0, 5), slice(5, 8))


def gradient(part: slice) -> tuple[Tensor, Tensor]:
    """Loss and gradient of one process: the selective loss on its part of eight images."""
    torch.manual_seed(0)
    method = LSHFM(FLAT, FLAT, hash_std=0.5, offset="zero", hashes=16)
    student, target, logits = torch.randn(8, 4), torch.randn(8, 4), torch.randn(8, 3)
    labels = logits.argmax(1)
    labels[1:4] = (labels[1:4] + 1) % 3
    s = student[part].requires_grad_()
    teacher = {"penultimate": target[part], "logits": logits[part]}
    loss = method({"penultimate": s}, teacher, batch(len(s), labels[part]))
    loss.backward()
    assert s.grad is not None
    return loss.detach(), s.grad


def queue(part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, gradient, queue and moving mean of one process, from its part of eight images."""
    torch.manual_seed(0)
    method = QueueKL(FLAT, FLAT, queue=10, affinity_weight=0)
    averages = Standardiser("ema", 4, momentum=0.5)
    student, target = torch.randn(8, 4), torch.randn(8, 4)
    s = student[part].requires_grad_()
    loss = method({"penultimate": s}, {"penultimate": target[part]}, batch(len(s)))
    loss.backward()
    averages(target[part])
    assert s.grad is not None
    return loss.detach(), s.grad, method.queue, torch.cat([averages.mean, averages.scale])


def joined(part: slice) -> tuple[Tensor, Tensor, int]:
    """Shares of three teachers in both averages, their gradients, and sums over processes."""
    sums, count = [], dist.all_reduce
    torch.manual_seed(0)
    losses, keep = torch.rand(3, 8), torch.rand(3, 8) < 0.5
    keep[0] = True
    own = losses[:, part].requires_grad_()
    dist.all_reduce = lambda *args: (sums.append(args), count(*args))  # type: ignore[assignment]
    try:
        both = [shares(own, keep[:, part], kind) for kind in ("image", "published")]
    finally:
        dist.all_reduce = count  # type: ignore[assignment]
    (torch.stack(both) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert own.grad is not None
    return torch.stack(both).detach(), own.grad, len(sums)


def work(rank: int, folder: str) -> None:
    where = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=len(SHARES))
    torch.save(gradient(SHARES[rank]), f"{folder}/{rank}.pt")
    torch.save(queue(SHARES[rank]), f"{folder}/queue{rank}.pt")
    torch.save(joined(SHARES[rank]), f"{folder}/joined{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this build of PyTorch has no distributed part")
def test_means_and_queues_are_of_the_images_of_all_processes(tmp_path: Path) -> None:
    loss, grad = gradient(slice(0, 8))
    start_processes(work, (str(tmp_path),), nprocs=len(SHARES), start_method="forkserver")
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]
    # What DistributedDataParallel does with losses and gradients: average over processes.
    torch.testing.assert_close(sum(p[0] for p in parts) / len(parts), loss)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]) / len(parts), grad)
    loss, grad, *state = queue(slice(0, 8))
    parts = [torch.load(tmp_path / f"queue{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(sum(p[0] for p in parts) / len(parts), loss)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]) / len(parts), grad)
    for part in parts:
        torch.testing.assert_close(part[2:], tuple(state))
    loss, grad, _ = joined(slice(0, 8))
    parts = [torch.load(tmp_path / f"joined{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(sum(p[0] for p in parts) / len(parts), loss)
    torch.testing.assert_close(torch.cat([p[1] for p in parts], 1) / len(parts), grad)
    assert [p[2] for p in parts] == [2, 2], "one for each average, however many teachers there are"
