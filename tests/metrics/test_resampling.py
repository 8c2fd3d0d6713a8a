"""Average precision on resampled test sets, against the same computed image by image."""

import pytest
import torch

from understudy.metrics import classification, detection, resampling
from understudy.metrics.detection import Detections, GroundTruth


def test_resamples_depend_on_nothing_but_the_number_of_images() -> None:
    counts = resampling.image_counts(30)
    assert counts.shape == (resampling.RESAMPLES, 30)
    assert (counts.sum(1) == 30).all()
    torch.manual_seed(5)
    assert torch.equal(resampling.image_counts(30), counts)


def test_multi_label_ap_is_near_that_of_the_repeated_images() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(25, 3, generator=generator)
    targets = torch.randint(-1, 2, (25, 3), generator=generator)
    resampled = classification.resampled_voc_ap(scores, targets)
    counts = resampling.image_counts(25)
    for r in (0, 1, 17):
        rows = torch.arange(25).repeat_interleave(counts[r])
        occurs = (targets[rows] == 1).any(0)
        repeated = classification.voc_ap(scores[rows], targets[rows])[occurs].mean()
        # Copies of one image are ranks of their own there, and one rank of more weight here.
        assert resampled[r] == pytest.approx(100 * float(repeated), abs=1.0)


def test_every_image_once_is_vocs_own_value() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(40, generator=generator)
    positive = torch.rand(40, generator=generator) < 0.4
    order = scores.argsort(descending=True)
    once = torch.ones(1, 40, dtype=torch.int64)
    value = resampling.average_precision(positive[order], order, positive.long(), once)
    targets = torch.where(positive, 1, -1)
    expected = classification.voc_ap(scores[:, None], targets[:, None])
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_detections_in_half_of_the_images() -> None:
    image = torch.arange(10)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(10, 1)
    classes, no = torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.bool)
    truth = GroundTruth(image, boxes, classes, no, no, torch.full((10,), 64.0))
    perfect = Detections(image, boxes, classes, torch.ones(10))
    assert detection.resampled_ap(perfect, truth, 1, image) == [100.0] * resampling.RESAMPLES
    half = Detections(image[:5], boxes[:5], classes[:5], torch.ones(5))
    values = torch.tensor(detection.resampled_ap(half, truth, 1, image))
    share = resampling.image_counts(10)[:, :5].sum(1) / 10
    assert torch.allclose(values, 100 * share.float(), atol=1e-4)
