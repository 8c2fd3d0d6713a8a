"""Embedding layer: trained before the classifier, folded into it for deployment.

Wang, Ge & Wu, "Distilling Knowledge by Mimicking Features", arXiv 2011.01424.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EmbeddedClassifier(nn.Module):
    """Embedding, dropout and classifier; replaces the classifier of a network.

    Args:
        embedding: From the penultimate vector to the embedding.
        dropout: The network's dropout, now between embedding and classifier; or an identity.
        classifier: From the embedding to the logits.
    """

    def __init__(self, embedding: nn.Linear, dropout: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.embedding = embedding
        self.dropout = dropout
        self.classifier = classifier

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        """Compute the logits."""
        logits: Tensor = self.classifier(self.dropout(self.embedding(x)))
        return logits

    def fold(self) -> nn.Linear:
        """Return one linear layer with the same logits: C (A g + a) + c = (C A) g + (C a + c).

        A, a are the embedding's weight and bias, C, c the classifier's; computed in float64.
        """
        embedding, classifier = self.embedding, self.classifier
        folded = linear_like(classifier, embedding.in_features, classifier.out_features, bias=True)
        weight = classifier.weight.double()
        with torch.no_grad():
            bias = weight @ embedding.bias.double()
            folded.weight.copy_(weight @ embedding.weight.double())
            folded.bias.copy_(bias if classifier.bias is None else bias + classifier.bias.double())
        return folded


def linear_like(layer: nn.Linear, dim_in: int, dim_out: int, *, bias: bool) -> nn.Linear:
    """Build a linear layer on the device and with the data type of another one."""
    weight = layer.weight
    return nn.Linear(dim_in, dim_out, bias=bias, device=weight.device, dtype=weight.dtype)


def classifier_like(layer: nn.Linear | nn.Conv2d, classes: int) -> nn.Linear | nn.Conv2d:
    """Build a classifier of the same kind as another one, for another number of classes."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return linear_like(layer, layer.in_features, classes, bias=bias)
    return nn.Conv2d(layer.in_channels, classes, 1, bias=bias).to(layer.weight)
