"""Finds the classifier of a network, and the vector that its logits are computed of.

Every answer is verified on the numbers of the traced pass. In order of preference:

1. One linear layer or 1×1 convolution whose output, averaged over the positions, is the network's
   output.
2. A classifier and a distillation classifier, known by the names that timm and Hugging Face give
   them, whose mean is the network's output.
3. Anything else that computes logits of one vector: a functional linear layer, cosines, a norm or a
   scale after the classifier, low-rank additions to it. The *last products* (matrix products and
   convolutions that no other one follows on the way to the output) are searched in the autograd
   graph; the vector is the last one before them through which every path from the images passes.

Where the last products read maps, or an activation follows them, the output is itself a feature: a
network without a classifier.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.models import probabilities, quantised
from understudy.models.last_products import LastProducts
from understudy.models.outputs import pick
from understudy.models.taps import dry_run, is_vector, override, read_vector
from understudy.models.traced_pass import Call, TensorRecord, TracedPass

_DROPOUT = nn.Dropout | nn.Dropout2d
_DISTILLATION = (
    ("head", "head_dist"),
    ("cls_classifier", "distillation_classifier"),
    ("classifier", "classifier_distill"),
)
"""Names of a classifier and its distillation classifier, in timm and in Hugging Face models."""


@dataclass(frozen=True)
class Head:
    """Classifier of a network, and where its input is tapped.

    Attributes:
        logits: True if the network's output is logits.
        penultimate: Tap path of the vector they are computed of; "" if the output is that vector.
        classifier: Path of the linear layer that computes them; "" if they are computed otherwise.
        dropout: Path of the dropout between `penultimate` and the classifier, or "".
        is_output: True if the classifier alone computes the logits.
        dist: Path of the distillation classifier whose logits are averaged with those of the
            classifier, or "".
        dist_penultimate: Tap path of its input if that is another vector, or "".
        began: Time step at which the head begins; None without a classifier.
        no_logits: Why the output is no logits, and what to do if it should be; "" if it is.
    """

    logits: bool = False
    penultimate: str = ""
    classifier: str = ""
    dropout: str = ""
    is_output: bool = False
    dist: str = ""
    dist_penultimate: str = ""
    began: int | None = None
    no_logits: str = ""


def find(
    module: nn.Module,
    images: Tensor,
    traced: TracedPass,
    named: str | None,
    penultimate: str = "",
) -> Head:
    """Return the head of a network.

    Args:
        module: In evaluation mode.
        images: The images of the traced pass.
        traced: A pass of the module.
        named: Path of the classifier, or of a module that holds all of it; None finds it, "" means
            that there is none.
        penultimate: Tap path of the penultimate feature, if the user names it.

    Raises:
        NetworkError: The named module is no classifier, it is not certain what the logits are
            computed of, or the user names the logits as the penultimate feature.
    """
    head = _find(module, images, traced, named, penultimate)
    if head.logits:
        _check_not_logits(traced, penultimate)
    return head


def _find(
    module: nn.Module, images: Tensor, traced: TracedPass, named: str | None, penultimate: str
) -> Head:
    if named == "":
        return Head()
    probabilities.refuse(module, images, traced)
    if named:
        return _named(module, images, traced, named)
    known = _single(traced) or _distilled(traced) or _quantised(module, images, traced)
    if known is not None:
        return known
    if traced.key in (("pooler_output",), ("last_hidden_state",)):
        return Head()
    if not penultimate:
        return _other(module, images, traced)
    try:
        head = _other(module, images, traced)
    except NetworkError:
        head = Head()
    is_vector = traced.output.ndim == 2
    return replace(head, logits=head.logits or is_vector, penultimate=penultimate)


# ---- one linear layer, or a known pair ----------------------------------------------------------


def _single(traced: TracedPass) -> Head | None:
    """Return the head of one linear layer that computes the output."""
    calls = [c for c in traced.calls if _is_head(c, traced.record)]
    outputs = [c for c in calls if traced.record.shares_memory(c.output)]
    trained = [c for c in traced.calls if c.own_parameters]
    for call in [*reversed(outputs), *(c for c in trained[-1:] if c in calls)]:
        # Of a network that gives NaN, which is refused elsewhere with the cause, the graph decides.
        equal = _equal(_logits(call), traced.output) or not bool(traced.output.isfinite().all())
        if equal and _decides(call, traced):
            return _linear_head(call, traced, is_output=True)
    return None


def _decides(call: Call, traced: TracedPass) -> bool:
    """Return True if the output is computed of this layer alone; equal zeros would not tell."""
    products = LastProducts.of(traced)
    node = call.output.node if call.output is not None else None
    return products is None or node is None or products.are_output_of(node)


def _linear_head(call: Call, traced: TracedPass, *, is_output: bool) -> Head:
    dropout = _dropout_before(call, traced.calls)
    return Head(
        logits=True,
        penultimate=f"{dropout or call.path}:input",
        classifier=call.path,
        dropout=dropout,
        is_output=is_output,
        began=call.began,
    )


def _distilled(traced: TracedPass) -> Head | None:
    """Return the head of a classifier and a distillation classifier, averaged."""
    heads = [c for c in traced.calls if _is_head(c, traced.record)]
    for first in heads:
        for second in heads:
            mean = (_logits(first) + _logits(second)) / 2
            if _are_pair(first.path, second.path) and _equal(mean, traced.output):
                same = _is_same(first, second)
                return Head(
                    logits=True,
                    penultimate=f"{first.path}:input",
                    classifier=first.path,
                    dist=second.path,
                    dist_penultimate="" if same else f"{second.path}:input",
                    began=min(first.began, second.began),
                )
    return None


def _quantised(module: nn.Module, images: Tensor, traced: TracedPass) -> Head | None:
    """Return the head of the last quantised linear layer, if it computes the output.

    Its weights are packed and it is in no graph, so that other passes decide.
    """
    packed = [c for c in traced.calls if quantised.has_packed_weights(c.module) and c.times == 1]
    last = next(reversed(packed), None)
    if last is None or last.output is None or last.output.shape != traced.record.shape:
        return None
    tap, is_activated = f"{last.path}:input", "ReLU" in type(last.module).__name__
    if is_activated or not _follows(module, images, traced, tap):
        return None
    return Head(logits=True, penultimate=tap, began=last.began)


def _is_same(first: Call, second: Call) -> bool:
    """Return True if two layers read one tensor: two norms are equal until they are trained."""
    x, y = first.source, second.source
    shared = x is not None and y is not None and x.shares_memory(y) and x.node is y.node
    return shared and _equal(_vector(first), _vector(second))


def _are_pair(first: str, second: str) -> bool:
    """Return True if two paths differ in the names of a known pair of classifiers alone."""
    ours, theirs = first.split("."), second.split(".")
    different = [pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]]
    return len(ours) == len(theirs) and len(different) == 1 and different[0] in _DISTILLATION


def _is_head(call: Call, output: TensorRecord) -> bool:
    """Return True if a layer computes as many values as there are logits, of one input."""
    y = call.output
    if y is None or call.times != 1 or y.shape[:2] != output.shape or call.vector is None:
        return False
    return call.is_pointwise and (isinstance(call.module, nn.Conv2d) or len(y.shape) == 2)


def _vector(call: Call) -> Tensor:
    assert call.vector is not None
    return call.vector


def _logits(call: Call) -> Tensor:
    """Compute a layer's output for the mean of its input."""
    layer = call.module
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    if getattr(layer, "groups", 1) != 1:
        return torch.full((), torch.nan)
    y = _vector(call).to(layer.weight) @ layer.weight.detach().flatten(1).T
    return y if layer.bias is None else y + layer.bias.detach()


def _equal(x: Tensor, y: Tensor) -> bool:
    """Return True if two tensors are equal up to rounding."""
    tolerance = 1e-4 if y.dtype in (torch.float32, torch.float64) else 3e-2
    if x.shape != y.shape or not bool(x.isfinite().all() and y.isfinite().all()):
        return False
    scale = float(y.double().abs().max()) if y.numel() else 0.0
    return torch.allclose(x.double(), y.double(), rtol=tolerance, atol=tolerance * scale)


def _dropout_before(last: Call, calls: list[Call]) -> str:
    """Return the path of a dropout whose output enters the classifier; "" if there is none."""
    for call in reversed([c for c in calls if c.ended < last.began]):
        is_dropout = isinstance(call.module, _DROPOUT) and call.times == 1
        if is_dropout and call.output is not None and call.output.shares_memory(last.source):
            return call.path
    return ""


# ---- a classifier that the user names -----------------------------------------------------------


def _named(module: nn.Module, images: Tensor, traced: TracedPass, path: str) -> Head:
    calls = [c for c in traced.calls if c.path == path]
    if len(calls) == 1 and calls[0].is_pointwise and calls[0].vector is not None:
        exact = _equal(_logits(calls[0]), traced.output)
        return _linear_head(calls[0], traced, is_output=exact)
    trained = len(calls) == 1 and _has_weights(calls[0].module)
    if not trained or not _follows(module, images, traced, f"{path}:input"):
        raise NetworkError(
            f"The classifier {path!r} is no linear layer that is called once in a pass, and no "
            "module from whose input alone the logits follow; name such a module, or the vector "
            "that enters it by taps: {penultimate: MODULE_PATH}."
        )
    return Head(logits=True, penultimate=f"{path}:input", began=calls[0].began)


def _has_weights(module: nn.Module) -> bool:
    """Return True if a module has parameters, or those that quantisation has packed."""
    packed = any(quantised.is_quantised(m) for m in module.modules())
    return packed or any(True for _ in module.parameters())


def _check_not_logits(traced: TracedPass, penultimate: str) -> None:
    """Refuse a tap of the penultimate feature that reads the logits."""
    path, _, side = penultimate.partition(":")
    for call in traced.calls:
        read = call.source if side else call.output
        if call.path == path and traced.record.shares_memory(read):
            raise NetworkError(
                f"taps: {{penultimate: {penultimate!r}}} names the logits themselves, not what "
                "they are computed of: name the input of the layer that computes them, "
                "'MODULE_PATH:input', or give classifier: '' if the output is a feature."
            )


# ---- any other head -----------------------------------------------------------------------------


def _other(module: nn.Module, images: Tensor, traced: TracedPass) -> Head:
    """Return the head that computes the logits in another way than by one linear layer."""
    products = LastProducts.of(traced)
    last = next((c for c in reversed(traced.calls) if c.own_parameters), None)
    maps = products is None or products.read_maps
    # A map may be of one position, as of small images. Not if another product weights positions.
    only = products is None or products.count == 1
    is_last = last is not None and only and _is_head(last, traced.record)
    if last and is_last and (maps or isinstance(last.module, nn.Conv2d)):
        # As in SqueezeNet: an activation and an average follow a convolution.
        return _linear_head(last, traced, is_output=False)
    if products is None or products.are_activated or products.all_read_maps:
        return Head(no_logits=_why_no_logits(traced, products))
    if products.read_maps:
        return _beside_tokens(module, traced)
    for tap, began in products.vectors(traced.calls):
        follows = _follows(module, images, traced, tap)
        if follows and (products.count == 1 or _is_affine(module, images, traced, tap)):
            return Head(logits=True, penultimate=tap, began=began)
    raise NetworkError(_uncertain(module, traced))


def _why_no_logits(traced: TracedPass, products: LastProducts | None) -> str:
    """Return why the output is taken for a feature, and what to do if it holds the logits."""
    of_quantised = [c for c in traced.calls if quantised.is_quantised(c.module)]
    heads = [c.path for c in traced.calls if _is_head(c, traced.record)]
    packed = [c for c in of_quantised if c.output and quantised.has_packed_weights(c.module)]
    heads += [c.path for c in packed if c.output and c.output.shape == traced.record.shape]
    name = f"classifier: {heads[-1]!r}" if heads else "classifier: MODULE_PATH"
    if of_quantised:
        why = "It has quantised layers, through which its classifier is not found"
    elif products is None:
        why = "No gradient leads from its output to the images, so that no classifier is found"
    elif products.are_activated:
        why = "An activation follows its last layer, so that its output is taken for a feature"
    else:
        why = "Its last layer gives values at several positions, so that no classifier is found"
    return f"{why}: if the output holds logits, name the layer that computes them by {name}."


def _beside_tokens(module: nn.Module, traced: TracedPass) -> Head:
    """Return the head of a classifier to which an auxiliary one of tokens is added.

    So it is in VOLO of timm; whatever else adds scores of positions to others is refused.
    """
    heads = {c.path: c for c in traced.calls if _is_head(c, traced.record)}
    if "head" in heads and isinstance(getattr(module, "aux_head", None), nn.Linear):
        return _linear_head(heads["head"], traced, is_output=False)
    raise NetworkError(_uncertain(module, traced))


def _follows(module: nn.Module, images: Tensor, traced: TracedPass, tap: str) -> bool:
    """Return True if the output follows from the vector at a tap alone.

    Tested by a pass over other images, in which the tap has the values of the traced pass.
    """
    value, other = read_vector(module, tap, images), images.flip(0, -1) * 0.5
    if value is None or _equal(_logits_of(module, other, traced), traced.output):
        # Logits that are equal for all images, as of a classifier of zeros, prove nothing.
        return value is not None and is_vector(module, tap, images)
    with override(module, tap, lambda x: value):
        return _equal(_logits_of(module, other, traced), traced.output)


def _is_affine(module: nn.Module, images: Tensor, traced: TracedPass, tap: str) -> bool:
    """Return True if the output is an affine function of the vector at a tap.

    So it is with low-rank additions to a classifier, and not with a mixture of experts.
    """
    outputs = []
    for change in (lambda x: 3 * x, lambda x: x.flip(0), lambda x: (3 * x + x.flip(0)) / 2):
        with override(module, tap, change):
            outputs.append(_logits_of(module, images, traced))
    return _equal((outputs[0] + outputs[1]) / 2, outputs[2])


def _logits_of(module: nn.Module, images: Tensor, traced: TracedPass) -> Tensor:
    return dry_run(module, images, lambda value: pick(value, traced.key)).detach()


def _uncertain(module: nn.Module, traced: TracedPass) -> str:
    heads = [c.path for c in traced.calls if _is_head(c, traced.record)]
    several = f" by {', '.join(map(repr, heads))}" if len(heads) > 1 else ""
    example = f"'{heads[-1]}:input'" if heads else "MODULE_PATH"
    return (
        f"The logits of {type(module).__name__} are computed{several} of more than one vector, or "
        "of one that no module takes or returns, so that it is not certain which is the "
        f"penultimate feature: name it by taps: {{penultimate: {example}}}, or the module of the "
        "whole head by classifier: MODULE_PATH, or take one member alone."
    )
