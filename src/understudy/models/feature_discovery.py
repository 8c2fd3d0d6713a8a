"""Finds the features of any network in one traced forward pass.

- The *classifier* is the linear layer (or 1×1 convolution before a global average) whose output
  becomes the network's output; `penultimate` is its input, before a dropout.
- The *stem* is the last output that is complete before the first weighted layer after it begins.
- A *stage* is all that is computed at one resolution, each half of the one before. It ends with the
  outermost module of that resolution; with the last one if several are equally far out. Resolutions
  without weights, such as that of a last max-pool, do not count. Where all features have one
  resolution (ViT), the longest chain of equal blocks is cut into four.
"""

from collections import Counter
from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from understudy.errors import NetworkError
from understudy.models.taps import DIST_PENULTIMATE, dry_run, first_tensor, is_channels_last

_WEIGHTED = nn.Linear | nn.Conv2d
_DROPOUT = nn.Dropout | nn.Dropout2d


@dataclass(frozen=True)
class NetworkStructure:
    """Tap paths and classifier of a network.

    Attributes:
        taps: Feature name → tap path.
        classifier: Path of the last layer, or "".
        dropout: Path of the dropout between `penultimate` and the classifier, or "".
        classifier_is_output: True if the classifier's output is the network's output.
        dist_classifier: Path of a second classifier, of a distillation token, whose logits are
            averaged with those of the first; or "".
    """

    taps: dict[str, str]
    classifier: str
    dropout: str = ""
    classifier_is_output: bool = True
    dist_classifier: str = ""


@dataclass(frozen=True)
class TensorRecord:
    """Shape and storage of a traced tensor, without its values, for which memory is too small."""

    shape: torch.Size
    storage: StorageWeakRef

    @classmethod
    def of(cls, value: object) -> "TensorRecord | None":
        """Record the main tensor of what a module takes or returns; None if there is none."""
        tensor = first_tensor(value)
        if tensor is None:
            return None
        # A weak reference does not keep the values, and keeps the storage's identity from being
        # given to a later tensor.
        return cls(tensor.shape, StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]

    def shares_memory(self, other: "TensorRecord | None") -> bool:
        """Return True if both are the same values in memory, perhaps in another shape."""
        return (
            other is not None
            and self.storage == other.storage
            and self.shape.numel() == other.shape.numel()
        )


@dataclass(eq=False)
class Call:
    """One call of one module during the traced pass.

    Attributes:
        path: Path of the module.
        module: The module.
        source: Its input.
        began: Time step at which the call began.
        ended: Time step at which the call ended.
        output: Its output.
        times: How often the module is called in the pass.
    """

    path: str
    module: nn.Module
    source: TensorRecord | None
    began: int
    ended: int = -1
    output: TensorRecord | None = None
    times: int = 1

    @property
    def depth(self) -> int:
        """Depth in the module tree."""
        return self.path.count(".")

    @property
    def own_parameters(self) -> bool:
        """True if the module itself holds parameters, not only its children."""
        return next(self.module.parameters(recurse=False), None) is not None

    @property
    def parent(self) -> str:
        """Path of the parent module."""
        return self.path.rpartition(".")[0]

    @property
    def batch(self) -> int:
        """Length of the output's first dimension."""
        return self.output.shape[0] if self.output is not None and self.output.shape else 0

    @property
    def positions(self) -> int:
        """Number of locations or tokens of the output; 0 if it is neither a map nor tokens."""
        if self.output is None:
            return 0
        shape = self.output.shape
        if is_channels_last(shape):
            return shape[1] * shape[2]
        if len(shape) == 4:
            return shape[2] * shape[3] if shape[2] == shape[3] else 0
        return shape[1] if len(shape) == 3 else 0

    @property
    def is_unactivated(self) -> bool:
        """True for a single layer whose activation is still to come."""
        name = type(self.module).__name__
        return isinstance(self.module, _WEIGHTED | nn.Identity) or (
            "Norm" in name and "Act" not in name and not list(self.module.children())
        )


def discover(module: nn.Module, images: Tensor, classifier: str | None) -> NetworkStructure:
    """Find stem, stages, penultimate feature and classifier of any network.

    Args:
        module: In evaluation mode.
        images: Two square images as the module takes them.
        classifier: Path of the last layer; None finds it, "" means there is none.

    Raises:
        NetworkError: The classifier is not a linear layer that is called once in a pass.
    """
    calls, output = _trace(module, images)
    last, dist, is_output = _classifier(calls, output, classifier)
    body = [c for c in calls if last is None or c.ended < last.began]
    taps = _stages(body, len(images), images.shape[-1])
    if last is None:
        return NetworkStructure(taps, "")
    dropout = _dropout_before(last, body)
    taps["penultimate"] = f"{dropout or last.path}:input"
    if dist is None:
        return NetworkStructure(taps, last.path, dropout, is_output)
    taps |= {DIST_PENULTIMATE: f"{dist.path}:input", "dist_logits": dist.path}
    return NetworkStructure(taps, last.path, dropout, is_output, dist.path)


def _trace(module: nn.Module, images: Tensor) -> tuple[list[Call], TensorRecord]:
    """Return the calls of all submodules, in the order they ended, and the network's output."""
    calls: list[Call] = []
    open_calls: list[Call] = []
    clock = iter(range(10**9))

    def begin(path: str, m: nn.Module, *arguments: object) -> None:
        open_calls.append(Call(path, m, TensorRecord.of(arguments), next(clock)))

    def end(output: object) -> None:
        call = open_calls.pop()
        call.ended, call.output = next(clock), TensorRecord.of(output)
        calls.append(call)

    handles = []
    for path, m in module.named_modules():
        if path:
            handles += [
                m.register_forward_pre_hook(
                    lambda m, args, kwargs, path=path: begin(path, m, args, kwargs),
                    with_kwargs=True,
                ),
                m.register_forward_hook(lambda m, args, output: end(output)),
            ]
    try:
        output = dry_run(module, images)
    finally:
        for handle in handles:
            handle.remove()
    counts = Counter(c.path for c in calls)
    for call in calls:
        call.times = counts[call.path]
    record = TensorRecord.of(output)
    assert record is not None
    return calls, record


def _classifier(
    calls: list[Call], output: TensorRecord, named: str | None
) -> tuple[Call | None, Call | None, bool]:
    """Return the last layer, a second one averaged with it, and if the first gives the output."""
    if named is not None:
        if not named:
            return None, None, False
        weighted = [c for c in calls if c.path == named and isinstance(c.module, _WEIGHTED)]
        if len(weighted) != 1:
            raise NetworkError(
                f"The classifier {named!r} is no linear layer that is called once in a pass."
            )
        return weighted[0], None, _is_output(weighted[0], output)
    # A layer that other trained layers follow, if only a norm, is no classifier but a projection.
    trained = [c for c in calls if c.own_parameters]
    heads = []
    while trained and _is_head(trained[-1], output):
        heads.append(trained.pop())
    if not heads:
        return None, None, False
    # Two are classifiers of two tokens, averaged (distilled DeiT); the first reads the class token.
    # `heads` are collected from the last to the first.
    dist = heads[0] if len(heads) == 2 else None
    return heads[-1], dist, len(heads) == 1 and _is_output(heads[0], output)


def _is_head(call: Call, output: TensorRecord) -> bool:
    """Return True if a layer computes the logits, or tensors that are averaged to the logits."""
    y, layer = call.output, call.module
    if y is None or call.times != 1 or y.shape[:2] != output.shape:
        return False
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    return pointwise or (isinstance(layer, nn.Linear) and len(y.shape) == 2)


def _is_output(call: Call, output: TensorRecord) -> bool:
    """Return True if the logits are the output of this layer and it is linear."""
    return isinstance(call.module, nn.Linear) and output.shares_memory(call.output)


def _dropout_before(last: Call, body: list[Call]) -> str:
    """Return the path of a dropout whose output enters the classifier; "" if there is none."""
    for call in reversed(body):
        is_dropout = isinstance(call.module, _DROPOUT) and call.times == 1
        if is_dropout and call.output is not None and call.output.shares_memory(last.source):
            return call.path
    return ""


def _stages(calls: list[Call], batch: int, side: int) -> dict[str, str]:
    """Return the paths of stem and stages; empty if there is no stem."""
    weighted = sorted((c for c in calls if isinstance(c.module, _WEIGHTED)), key=lambda c: c.began)
    # What is computed for windows of the images (Swin) has more rows than the batch.
    readable = [c for c in calls if c.times == 1 and c.positions > 1 and c.batch == batch]
    stem = _stem(readable, calls, weighted)
    if stem is None:
        return {}
    stem_level = _level(stem, side)
    after = [c for c in readable if c.ended > stem.ended and _level(c, side) >= stem_level]
    levels = sorted(
        {_level(c, side) for c in after}
        & {_level(c, side) for c in weighted if c.ended > stem.ended and c.positions > 1}
    )
    if len(levels) == 1:
        ends = _quarters(after)
    else:
        ends = [_outermost([c for c in after if _level(c, side) == level]) for level in levels]
        ends = _siblings(ends, after)
    return {"stem": stem.path} | {f"stage{i}": c.path for i, c in enumerate(ends, 1)}


def _stem(readable: list[Call], calls: list[Call], weighted: list[Call]) -> Call | None:
    """Return the last call complete when the branch of the next weighted layer begins.

    The stem's layers are those of the largest module around the first weighted layer that holds at
    most a fifth of all weighted layers; else that layer alone. The next weighted layer is the first
    one after them.
    """
    if not weighted:
        return None
    first = weighted[0]
    around = [
        c
        for c in calls
        if _inside(first, c) and 5 * sum(_inside(w, c) for w in weighted) <= len(weighted)
    ]
    front = max(around, key=lambda c: c.ended, default=first)
    following = next((w for w in weighted if w.began > front.ended), None)
    if following is None:
        return None
    branch = min(c.began for c in calls if c.began > front.ended and _inside(following, c))
    complete = [
        c
        for c in readable
        if first.ended <= c.ended < branch and not isinstance(c.module, nn.Identity)
    ]
    return max(complete, key=lambda c: c.ended, default=None)


def _inside(inner: Call, outer: Call) -> bool:
    """Return True if a module is inside another one of the module tree, or the same."""
    return f"{inner.path}.".startswith(f"{outer.path}.")


def _siblings(ends: list[Call], after: list[Call]) -> list[Call]:
    """Return the ends of stages that are beside each other in the module tree.

    The output of a container is also that of its last child: of the two, the sibling of the stage
    before is returned. A resolution that ends inside the module of the next stage is no stage: it
    is part of a block whose second convolution is strided.
    """
    *before, last = ends
    if before:
        layers = [c for c in after if not c.is_unactivated]
        twins = [c for c in layers if last.output and last.output.shares_memory(c.output)]
        last = next((c for c in twins if c.parent == before[-1].parent), last)
    ends = [*before, last]
    inner = [[e for e in ends if e is not outer and _inside(e, outer)] for outer in ends]
    return [end for end in ends if [end] not in inner]


def _level(call: Call, side: int) -> int:
    """Return how often the image was halved; class tokens and odd sizes do not matter."""
    return round(log2(side / max(call.positions, 1) ** 0.5))


def _outermost(calls: list[Call]) -> Call:
    """Return the outermost call, the last of equals; an unactivated one only if all are."""
    return min(calls, key=lambda c: (c.is_unactivated, c.depth, -c.ended))


def _quarters(calls: list[Call]) -> list[Call]:
    """Return the ends of the quarters of the longest chain of children with equal output shapes."""
    chains: dict[tuple[str, torch.Size], list[Call]] = {}
    for call in calls:
        if call.output is not None and list(call.module.children()):
            chains.setdefault((call.parent, call.output.shape), []).append(call)
    if not chains:
        return [_outermost(calls)]
    chain = max(chains.values(), key=len)
    ends = sorted({-(-len(chain) * quarter // 4) - 1 for quarter in range(1, 5)})
    return [chain[i] for i in ends]
