"""Images that a network takes, and the names of its stages."""

import torch

from understudy.models import Network


def images(network: Network, batch: int = 3, seed: int = 1) -> torch.Tensor:
    size = network.input.size or 32
    noise = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return noise.to(next(network.parameters()).dtype)


def stages(network: Network) -> list[str]:
    return [k for k in network.shapes if k.startswith("stage") and "/" not in k]
