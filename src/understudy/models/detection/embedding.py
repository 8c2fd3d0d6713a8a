"""Embedding layer of a detector: trained before a convolution, folded into it for deployment."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.functional import double


@final
class EmbeddedScores(nn.Module):
    """Embedding and scores; replaces a convolution that computes scores. Both layers are new.

    The embedding has a bias, no norm and no activation (Wang, Ge & Wu, arXiv 2011.01424). It reads
    what the convolution read; the scores are linear in its output.

    Args:
        scores: The convolution to replace.
        dim: Width of the embedding.
    """

    def __init__(self, scores: nn.Conv2d, dim: int) -> None:
        super().__init__()
        self.embedding = _conv_like(scores, scores.in_channels, dim)
        self.classifier = nn.Conv2d(dim, scores.out_channels, 1).to(scores.weight)
        for layer in (self.embedding, self.classifier):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch scores h w"]:
        """Compute the scores."""
        scores: Tensor = self.classifier(self.embedding(x))
        return scores

    def fold(self) -> nn.Conv2d:
        """Return one convolution with the same scores: C (A * x + a) + c = (C A) * x + (C a + c).

        A, a are the embedding's weight and bias, C, c the classifier's; computed in float64.
        """
        embedding, classifier = self.embedding, self.classifier
        assert embedding.bias is not None
        assert classifier.bias is not None
        folded = _conv_like(embedding, embedding.in_channels, classifier.out_channels)
        mix = double(classifier.weight).flatten(1)
        with torch.no_grad():
            weight = mix @ double(embedding.weight).flatten(1)
            folded.weight.copy_(weight.view_as(folded.weight))
            assert folded.bias is not None
            folded.bias.copy_(mix @ double(embedding.bias) + double(classifier.bias))
        return folded


def _conv_like(layer: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """Build a convolution with the kernel size, stride, padding and dilation of another one.

    It is on the same device and has the same data type.
    """
    geometry: dict[str, Any] = {
        name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")
    }
    return nn.Conv2d(inputs, outputs, **geometry).to(layer.weight)
