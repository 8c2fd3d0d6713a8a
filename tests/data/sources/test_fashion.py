"""The part of Fashion-MNIST that is shipped."""

import torch

from understudy.data.sources import fashion


def test_fashion_is_balanced_and_padded() -> None:
    for split, per_class in (("train", 1000), ("test", 250)):
        source = fashion.load("", split)  # type: ignore[arg-type]
        assert torch.bincount(source.labels).tolist() == [per_class] * 10
        assert source.pixels is not None
        assert not source.pixels[:, :, :2].any()
        assert source.pixels[:, :, 2:30].any()
        assert torch.equal(source.pixels[:, 0], source.pixels[:, 2])
