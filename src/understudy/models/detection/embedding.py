"""The embedding layer of a detector: trained before a convolution, folded into it to deploy."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class EmbeddedScores(nn.Module):
    """Embedding and scores in the place of a convolution that gives scores, both made anew.

    The embedding has a bias, no norm and no activation (Wang, Ge & Wu, arXiv 2011.01424). It sees
    what the convolution saw; the scores are linear in what it gives.

    Args:
        scores: The convolution.
        dim: Width of the embedding.
    """

    def __init__(self, scores: nn.Conv2d, dim: int) -> None:
        super().__init__()
        self.embedding = _like(scores, scores.in_channels, dim)
        self.classifier = nn.Conv2d(dim, scores.out_channels, 1).to(scores.weight)
        for layer in (self.embedding, self.classifier):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch scores h w"]:
        """Scores."""
        scores: Tensor = self.classifier(self.embedding(x))
        return scores

    def fold(self) -> nn.Conv2d:
        """The one convolution with the same scores: C (A * x + a) + c = (C A) * x + (C a + c)."""
        inner, outer = self.embedding, self.classifier
        assert inner.bias is not None
        assert outer.bias is not None
        folded = _like(inner, inner.in_channels, outer.out_channels)
        mix = outer.weight.double().flatten(1)
        with torch.no_grad():
            weight = mix @ inner.weight.double().flatten(1)
            folded.weight.copy_(weight.view_as(folded.weight))
            assert folded.bias is not None
            folded.bias.copy_(mix @ inner.bias.double() + outer.bias.double())
        return folded


def _like(layer: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """A new convolution that moves over a map as another does, where that one is."""
    form: dict[str, Any] = {
        name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")
    }
    return nn.Conv2d(inputs, outputs, **form).to(layer.weight)
