"""Evaluation in parts that fit into memory."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tests.distillation.small_networks import images, network
from understudy import tasks
from understudy.batch import Batch
from understudy.experiment.outputs import collect
from understudy.models.network import Network
from understudy.models.preprocessing import Input


def test_a_network_is_evaluated_in_parts_that_fit(log: pytest.LogCaptureFixture) -> None:
    wrapped = Network(network(), input=Input(size=16))
    batches = [Batch.of(images(7, 3, 16, 16), torch.zeros(7, dtype=torch.long))]
    task, devices = tasks.find("classification"), Accelerator(cpu=True)
    whole = collect(wrapped, batches, devices, task)
    sizes: list[int] = []

    def check(_: Any, args: tuple[Tensor]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    wrapped.module.register_forward_pre_hook(check)
    parts = collect(wrapped, batches, devices, task)
    assert sizes == [7, 3, 3, 1]
    assert all(torch.allclose(x, parts[name], atol=1e-6) for name, x in whole.items())
    assert log.messages == [
        "Memory ran out while evaluating with 7 images at a time; it goes on with 3."
    ]
