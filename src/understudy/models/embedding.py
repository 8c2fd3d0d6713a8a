"""The embedding layer: trained before the classifier, folded into it for deployment.

Wang, Ge & Wu, "Distilling Knowledge by Mimicking Features", arXiv 2011.01424.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Embedded(nn.Module):
    """Embedding, dropout and classifier in the place where the classifier stood."""

    def __init__(self, embedding: nn.Linear, dropout: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.embedding = embedding
        self.dropout = dropout
        self.classifier = classifier

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        logits: Tensor = self.classifier(self.dropout(self.embedding(x)))
        return logits

    def fold(self) -> nn.Linear:
        """The one linear layer with the same logits: C (A g + a) + c = (C A) g + (C a + c)."""
        inner, outer = self.embedding, self.classifier
        folded = linear_like(outer, inner.in_features, outer.out_features, bias=True)
        with torch.no_grad():
            bias = outer.weight.double() @ inner.bias.double()
            folded.weight.copy_(outer.weight.double() @ inner.weight.double())
            folded.bias.copy_(bias if outer.bias is None else bias + outer.bias.double())
        return folded


def linear_like(layer: nn.Linear, dim_in: int, dim_out: int, *, bias: bool) -> nn.Linear:
    """A new linear layer on the device and in the type of another."""
    weight = layer.weight
    return nn.Linear(dim_in, dim_out, bias=bias, device=weight.device, dtype=weight.dtype)


def classifier_like(layer: nn.Linear | nn.Conv2d, classes: int) -> nn.Linear | nn.Conv2d:
    """A new classifier of the form of another, for other classes."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return linear_like(layer, layer.in_features, classes, bias=bias)
    return nn.Conv2d(layer.in_channels, classes, 1, bias=bias).to(layer.weight)
