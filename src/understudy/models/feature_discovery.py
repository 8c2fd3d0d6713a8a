"""Where the features of a foreign network are: read off one traced pass.

- The *classifier* is the linear layer (or 1×1 convolution before a global average) whose output
  becomes the network's output; `penultimate` is what enters it, before a dropout.
- The *stem* is what has been computed just before the first weighted layer after it.
- A *stage* ends with the outermost module at one resolution, halvings apart; with the last one if
  several are equally far out. Resolutions without weights, such as a last max-pool, do not count.
  Where all features have one resolution (ViT), the longest chain of equal blocks is cut in four.
"""

from collections import Counter
from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from understudy.errors import NetworkError
from understudy.models.taps import OTHER_TOKEN, first_tensor, is_channels_last, run

_WEIGHTED = nn.Linear | nn.Conv2d
_DROPOUT = nn.Dropout | nn.Dropout2d


@dataclass(frozen=True)
class Anatomy:
    """Where a network has its features and its classifier.

    Attributes:
        taps: Feature name → place.
        classifier: Path of the last layer, or "".
        dropout: Path of the dropout between `penultimate` and the classifier, or "".
        exact: Whether the classifier's output is the network's output.
        second: Path of a second classifier, of another token, whose logits are averaged with those
            of the first; or "".
    """

    taps: dict[str, str]
    classifier: str
    dropout: str = ""
    exact: bool = True
    second: str = ""


@dataclass(frozen=True)
class Seen:
    """A tensor of the traced pass, without its numbers: those of a big network would not fit."""

    shape: torch.Size
    storage: StorageWeakRef

    @classmethod
    def of(cls, value: object) -> "Seen | None":
        """What is remembered of the tensor in what a module receives or returns."""
        tensor = first_tensor(value)
        if tensor is None:
            return None
        # A weak reference frees the numbers, yet no later tensor gets the same identity.
        return cls(tensor.shape, StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]

    def same(self, other: "Seen | None") -> bool:
        """Whether both are the same numbers in memory, perhaps in another shape."""
        return (
            other is not None
            and self.storage == other.storage
            and self.shape.numel() == other.shape.numel()
        )


@dataclass(eq=False)
class Call:
    """One call of one module during the traced pass."""

    path: str
    module: nn.Module
    source: Seen | None
    began: int
    ended: int = -1
    output: Seen | None = None
    times: int = 1

    @property
    def depth(self) -> int:
        """How deep in the module tree."""
        return self.path.count(".")

    @property
    def own_parameters(self) -> bool:
        """Whether the module itself holds parameters, not only its children."""
        return next(self.module.parameters(recurse=False), None) is not None

    @property
    def parent(self) -> str:
        """Path of the module around it."""
        return self.path.rpartition(".")[0]

    @property
    def batch(self) -> int:
        """Length of the first dimension of what it gives."""
        return self.output.shape[0] if self.output is not None and self.output.shape else 0

    @property
    def positions(self) -> int:
        """Locations of the map or tokens it gives; 0 if it gives neither."""
        if self.output is None:
            return 0
        shape = self.output.shape
        if is_channels_last(shape):
            return shape[1] * shape[2]
        if len(shape) == 4:
            return shape[2] * shape[3] if shape[2] == shape[3] else 0
        return shape[1] if len(shape) == 3 else 0

    @property
    def bare(self) -> bool:
        """A single layer, the activation after which is still to come."""
        name = type(self.module).__name__
        return isinstance(self.module, _WEIGHTED | nn.Identity) or (
            "Norm" in name and "Act" not in name and not list(self.module.children())
        )


def discover(module: nn.Module, images: Tensor, classifier: str | None) -> Anatomy:
    """Stem, stages, penultimate feature and classifier of any network.

    Args:
        module: In eval mode.
        images: Two square images as the module wants them.
        classifier: Path of the last layer if known, "" if there is none.
    """
    calls, output = _trace(module, images)
    last, second, exact = _classifier(calls, output, classifier)
    body = [c for c in calls if last is None or c.ended < last.began]
    taps = _stages(body, len(images), images.shape[-1])
    if last is None:
        return Anatomy(taps, "")
    dropout = _dropout_before(last, body)
    taps["penultimate"] = f"{dropout or last.path}:input"
    if second is None:
        return Anatomy(taps, last.path, dropout, exact)
    taps |= {OTHER_TOKEN: f"{second.path}:input", "dist_logits": second.path}
    return Anatomy(taps, last.path, dropout, exact, second.path)


def _trace(module: nn.Module, images: Tensor) -> tuple[list[Call], Seen]:
    """Every call of every submodule in the order they ended, and the network's output."""
    calls: list[Call] = []
    open_calls: list[Call] = []
    clock = iter(range(10**9))

    def begin(path: str, m: nn.Module, *arguments: object) -> None:
        open_calls.append(Call(path, m, Seen.of(arguments), next(clock)))

    def end(output: object) -> None:
        call = open_calls.pop()
        call.ended, call.output = next(clock), Seen.of(output)
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
        output = run(module, images)
    finally:
        for handle in handles:
            handle.remove()
    counts = Counter(c.path for c in calls)
    for call in calls:
        call.times = counts[call.path]
    seen = Seen.of(output)
    assert seen is not None
    return calls, seen


def _classifier(
    calls: list[Call], output: Seen, named: str | None
) -> tuple[Call | None, Call | None, bool]:
    """The last layer, a second one averaged with it, and whether the first gives the output."""
    if named is not None:
        weighted = [c for c in calls if c.path == named and isinstance(c.module, _WEIGHTED)]
        if named and len(weighted) != 1:
            raise NetworkError(
                f"The classifier {named!r} is no linear layer that is called once in a pass."
            )
        return (weighted[0], None, _gives(weighted[0], output)) if named else (None, None, False)
    # A layer that other trained layers follow, if only a norm, is no classifier but a projection.
    trained = [c for c in calls if c.own_parameters]
    heads = []
    while trained and _is_head(trained[-1], output):
        heads.append(trained.pop())
    if not heads:
        return None, None, False
    # Two are classifiers of two tokens, averaged (distilled DeiT); the first reads the class token.
    second = heads[0] if len(heads) == 2 else None
    return heads[-1], second, len(heads) == 1 and _gives(heads[0], output)


def _is_head(call: Call, output: Seen) -> bool:
    """Whether a layer gives the logits, or one of the tensors that are averaged to them."""
    y, layer = call.output, call.module
    if y is None or call.times != 1 or y.shape[:2] != output.shape:
        return False
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    return pointwise or (isinstance(layer, nn.Linear) and len(y.shape) == 2)


def _gives(call: Call, output: Seen) -> bool:
    """Whether the logits are linear in what enters this layer: they are what it gives."""
    return isinstance(call.module, nn.Linear) and output.same(call.output)


def _dropout_before(last: Call, body: list[Call]) -> str:
    """Path of a dropout whose output is what enters the classifier."""
    for call in reversed(body):
        dropout = isinstance(call.module, _DROPOUT) and call.times == 1
        if dropout and call.output is not None and call.output.same(last.source):
            return call.path
    return ""


def _stages(calls: list[Call], batch: int, side: int) -> dict[str, str]:
    """Stem and stages."""
    weighted = sorted((c for c in calls if isinstance(c.module, _WEIGHTED)), key=lambda c: c.began)
    read = [c for c in calls if c.times == 1 and c.positions > 1 and c.batch == batch]
    stem = _stem(read, calls, weighted)
    if stem is None:
        return {}
    top = _level(stem, side)
    after = [c for c in read if c.ended > stem.ended and _level(c, side) >= top]
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


def _stem(read: list[Call], calls: list[Call], weighted: list[Call]) -> Call | None:
    """What is complete when the branch of the first weighted layer after the stem begins.

    The stem's layers are those of the largest module around the first weighted layer that holds at
    most a fifth of all weighted layers; else that layer alone.
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
    second = next((w for w in weighted if w.began > front.ended), None)
    if second is None:
        return None
    begun = min(c.began for c in calls if c.began > front.ended and _inside(second, c))
    done = [
        c for c in read if first.ended <= c.ended < begun and not isinstance(c.module, nn.Identity)
    ]
    return max(done, key=lambda c: c.ended, default=None)


def _inside(inner: Call, outer: Call) -> bool:
    """Whether a module lies in another one of the tree, or is that one."""
    return f"{inner.path}.".startswith(f"{outer.path}.")


def _siblings(ends: list[Call], after: list[Call]) -> list[Call]:
    """Ends of stages that lie beside each other in the module tree.

    A container's output is also that of its last child: of the two, the sibling of the stage before
    is named. A resolution that ends inside the module of the next stage is none of its own: it is a
    block whose second convolution is strided.
    """
    *before, last = ends
    if before:
        twins = [c for c in after if not c.bare and last.output and last.output.same(c.output)]
        last = next((c for c in twins if c.parent == before[-1].parent), last)
    ends = [*before, last]
    inner = [[e for e in ends if e is not outer and _inside(e, outer)] for outer in ends]
    return [end for end in ends if [end] not in inner]


def _level(call: Call, side: int) -> int:
    """How many times the image has been halved; class tokens and odd sizes do not matter."""
    return round(log2(side / max(call.positions, 1) ** 0.5))


def _outermost(calls: list[Call]) -> Call:
    return min(calls, key=lambda c: (c.bare, c.depth, -c.ended))


def _quarters(calls: list[Call]) -> list[Call]:
    """Ends of the four quarters of the longest chain of equally shaped children of one module."""
    chains: dict[tuple[str, torch.Size], list[Call]] = {}
    for call in calls:
        if call.output is not None and list(call.module.children()):
            chains.setdefault((call.parent, call.output.shape), []).append(call)
    if not chains:
        return [_outermost(calls)]
    chain = max(chains.values(), key=len)
    ends = sorted({-(-len(chain) * quarter // 4) - 1 for quarter in range(1, 5)})
    return [chain[i] for i in ends]
