"""Checks and changes the linear layers that compute the logits of a network."""

from torch import nn

from understudy.errors import NetworkError
from understudy.models.embedding import Layer, classifier_like, is_reparametrised
from understudy.models.heads import Head


def classifier_layer(module: nn.Module, path: str, name: str) -> Layer:
    """Return the classifier at a path.

    Args:
        module: The network.
        path: Path of the classifier.
        name: Name of the network for errors.

    Raises:
        NetworkError: It is neither a linear layer nor a convolution.
    """
    layer = module.get_submodule(path)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise NetworkError(
            f"The classifier {path!r} of {name} is a {type(layer).__name__}; "
            "it must be a linear layer or a 1×1 convolution."
        )
    return layer


def classifier_layers(module: nn.Module, head: Head, name: str) -> list[Layer]:
    """Return the classifier, and the distillation classifier if there is one."""
    paths = filter(None, (head.classifier, head.dist))
    return [classifier_layer(module, path, name) for path in paths]


def reset_layer(module: nn.Module, path: str, classes: int, name: str) -> Layer:
    """Replace a classifier by a new one for another number of classes, and return it.

    Raises:
        NetworkError: The classifier computes its weight of other parameters.
    """
    layer = classifier_layer(module, path, name)
    if is_reparametrised(layer):
        raise NetworkError(
            f"The classifier {path!r} of {name} computes its weight of other parameters and cannot "
            f"be reset to {classes} classes: build the network with so many."
        )
    new = classifier_like(layer, classes)
    module.set_submodule(path, new)
    return new


def check_embeddable(module: nn.Module, head: Head, name: str, embedded: int) -> None:
    """Refuse an embedding layer that could not be folded into the classifier exactly.

    Args:
        module: The network.
        head: Its head.
        name: Its name for errors.
        embedded: Dimension of an embedding layer that it has already; 0 if it has none.

    Raises:
        NetworkError: There is no single plain classifier, or an embedding layer already.
    """
    why = ""
    if embedded:
        why = f"it has one of {embedded} dimensions"
    elif head.dist:
        why = f"its logits are the mean of two classifiers, {head.classifier!r} and {head.dist!r}"
    elif not head.classifier or not head.is_output:
        classifier = f"the classifier {head.classifier!r} alone" if head.classifier else "one layer"
        why = f"its logits are not the output of {classifier}"
    elif is_reparametrised(classifier_layer(module, head.classifier, name)):
        why = f"its classifier {head.classifier!r} computes its weight of other parameters"
    if why:
        raise NetworkError(
            f"{name} cannot take an embedding layer, which needs one plain classifier to fold into "
            f"and no embedding yet: {why}. Use a method that adds no layer to the student, such as "
            "pefd or nd, or a network of the teacher's dimension."
        )
