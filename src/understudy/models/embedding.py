"""Embedding layer: trained before the classifier, folded into it for deployment.

Wang, Ge & Wu, "Distilling Knowledge by Mimicking Features", arXiv 2011.01424.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.functional import double

Layer = nn.Linear | nn.Conv2d
"""A classifier: a linear layer, or a 1×1 convolution before or after the average of a map."""


class EmbeddedClassifier(nn.Module):
    """Embedding, dropout and classifier; replaces the classifier of a network.

    Args:
        embedding: From the penultimate vector, or map, to the embedding.
        dropout: The network's dropout, now between embedding and classifier; or an identity.
        classifier: From the embedding to the logits; of the embedding's kind.
    """

    def __init__(self, embedding: Layer, dropout: nn.Module, classifier: Layer) -> None:
        super().__init__()
        self.embedding = embedding
        self.dropout = dropout
        self.classifier = classifier

    def forward(self, x: Float[Tensor, "batch width *space"]) -> Tensor:
        """Compute the logits."""
        logits: Tensor = self.classifier(self.dropout(self.embedding(x)))
        return logits

    def fold(self) -> Layer:
        """Return one layer with the same logits: C (A g + a) + c = (C A) g + (C a + c).

        A, a are the embedding's weight and bias, C, c the classifier's; computed in float64.
        Without a and c the layer has no bias.
        """
        embedding, classifier = self.embedding, self.classifier
        biased = embedding.bias is not None or classifier.bias is not None
        width = embedding.weight.shape[1]
        folded = layer_like(classifier, width, len(classifier.weight), bias=biased)
        weight = double(classifier.weight).flatten(1)
        with torch.no_grad():
            product = weight @ double(embedding.weight).flatten(1)
            folded.weight.copy_(product.view_as(folded.weight))
            bias = weight.new_zeros(len(weight))
            if embedding.bias is not None:
                bias = bias + weight @ double(embedding.bias)
            if classifier.bias is not None:
                bias = bias + double(classifier.bias)
            if folded.bias is not None:
                folded.bias.copy_(bias)
        return folded


def fold_into(module: nn.Module, path: str, dropout: str) -> None:
    """Fold the embedding at a path into its classifier, and put the dropout back.

    Args:
        module: Changed in place.
        path: Path of the `EmbeddedClassifier`.
        dropout: Path of the dropout before it; "" without one.
    """
    block = module.get_submodule(path)
    assert isinstance(block, EmbeddedClassifier)
    module.set_submodule(path, block.fold())
    if dropout:
        module.set_submodule(dropout, block.dropout)


def layer_like(layer: Layer, dim_in: int, dim_out: int, *, bias: bool) -> Layer:
    """Build a layer of the kind, on the device and with the data type of another one."""
    weight = layer.weight
    if isinstance(layer, nn.Linear):
        return nn.Linear(dim_in, dim_out, bias=bias, device=weight.device, dtype=weight.dtype)
    return nn.Conv2d(dim_in, dim_out, 1, bias=bias, device=weight.device, dtype=weight.dtype)


def layers_like(layer: Layer, dim: int) -> tuple[Layer, Layer]:
    """Build an embedding to `dim` dimensions and a classifier of it, in place of a classifier."""
    classes, width = layer.weight.shape[:2]
    bias = layer.bias is not None
    return layer_like(layer, width, dim, bias=bias), layer_like(layer, dim, classes, bias=bias)


def classifier_like(layer: Layer, classes: int) -> Layer:
    """Build a classifier of the same kind as another one, for another number of classes."""
    return layer_like(layer, layer.weight.shape[1], classes, bias=layer.bias is not None)


def is_reparametrised(layer: nn.Module) -> bool:
    """Return True if a layer computes its weight of other parameters, as weight norm does."""
    return "weight" not in dict(layer.named_parameters(recurse=False))
