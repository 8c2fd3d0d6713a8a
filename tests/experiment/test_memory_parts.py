"""Evaluation in parts that fit into memory."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tests.distillation.small_networks import images, network
from understudy import tasks
from understudy.batch import Batch
from understudy.experiment.outputs import collect
from understudy.models import detection
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


def test_boxes_do_not_depend_on_larger_images_in_the_batch() -> None:
    options = {"backbone": "timm:test_resnet", "channels": 64, "min_size": 32, "max_size": 96}
    options["score_thresh"] = 0.0
    torch.manual_seed(0)
    wrapped = detection.find("fcos", num_classes=2, options=options)
    for layer in wrapped.module.head.modules():  # as initialised, all scores are nearly equal
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)
    pictures = [torch.rand(3, 40, 40), torch.rand(3, 40, 90)]
    boxes = [{"boxes": torch.rand(1, 4).cumsum(1), "labels": torch.ones(1)} for _ in pictures]
    task, devices = tasks.find("detection"), Accelerator(cpu=True)

    def numbered(rows: list[int]) -> Batch:
        batch = Batch.of([pictures[i] for i in rows], [boxes[i] for i in rows])
        labels = torch.zeros(len(rows), 2, dtype=torch.long)
        return replace(batch, labels=labels, index=torch.tensor(rows))

    together = collect(wrapped, [numbered([0, 1])], devices, task)
    one_by_one = collect(wrapped, [numbered([i]) for i in range(2)], devices, task)
    padded = wrapped.eval().outputs(numbered([0, 1]))
    assert len(one_by_one["boxes"]) > 3
    for number in range(2):
        several, one = (x["boxes"][x["image"] == number] for x in (together, one_by_one))
        assert torch.allclose(several, one, atol=1e-3)
    one = one_by_one["boxes"][one_by_one["image"] == 0]
    other = padded["boxes"][padded["image"] == 0]
    assert one.shape != other.shape or not torch.allclose(one, other, atol=1e-3)
