"""Finds the features of any network in one traced forward pass.

- The *classifier* is the linear layer (or 1×1 convolution before a global average) whose output
  becomes the network's output; `penultimate` is its input, before a dropout.
- The *stem* is the last output that is complete before the first weighted layer after it begins.
- A *stage* is all that is computed at one resolution, each half of the one before. It ends with the
  outermost module of that resolution; with the last one if several are equally far out. Resolutions
  without weights, such as that of a last max-pool, do not count. Where all features have one
  resolution (ViT), the longest chain of equal blocks is cut into four.
- The *tokens* of such a chain are the output of the last norm behind it, else of its last block;
  `cls`, `registers` and `patches` are parts of them (`token_grids.py`).
  `patches/previous` are those of the block before, behind the same norm.
- A *pre-activation* `stage1/preact` is what enters the activation whose output is the stage. A
  stage that ends otherwise, or in an activation that is no module, has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from understudy.features import PREVIOUS_PATCHES
from understudy.models import heads
from understudy.models.heads import Head
from understudy.models.last_products import is_activation
from understudy.models.outputs import Key
from understudy.models.taps import DIST_PENULTIMATE
from understudy.models.token_grids import NORMALISED, UNKNOWN, TokenLayout, token_layout
from understudy.models.traced_pass import WEIGHTED, Call, trace


@dataclass(frozen=True)
class NetworkStructure:
    """Tap paths and classifier of a network.

    Attributes:
        taps: Feature name → tap path.
        head: Classifier, and the vector that the logits are computed of.
        output: Where in what the network returns the logits are.
        example: What it returns for the images of the dry pass; None if that was not needed.
        blocks: Paths of the equal blocks of a transformer of one resolution, first to last.
        norm: Path of the norm behind the last block; "" if there is none.
        tokens: Where the patches lie among its tokens.
    """

    taps: dict[str, str]
    head: Head
    output: Key = ()
    example: Tensor | None = None
    blocks: tuple[str, ...] = ()
    norm: str = ""
    tokens: TokenLayout = UNKNOWN


def structure(
    module: nn.Module, images: Tensor, classifier: str | None, penultimate: str = ""
) -> NetworkStructure:
    """Return taps and classifier as a module declares them, else as a dry pass finds them.

    The arguments and errors are those of `discover`.
    """
    declared = getattr(module, "taps", None)
    # A network of timm without a classifier says so.
    if classifier is None and getattr(module, "num_classes", None) == 0:
        classifier = ""
    if not isinstance(declared, Mapping):
        return discover(module, images, classifier, penultimate)
    path = getattr(module, "classifier_path", "") if classifier is None else classifier
    head = Head(bool(path), classifier=path, is_output=True)
    return NetworkStructure(dict(declared), head, tokens=token_layout(module, images.shape[2:]))


def discover(
    module: nn.Module, images: Tensor, classifier: str | None, penultimate: str = ""
) -> NetworkStructure:
    """Find stem, stages, penultimate feature and classifier of any network.

    Args:
        module: In evaluation mode.
        images: Two images as the module takes them.
        classifier: Path of the last layer, or of a module that holds it; None finds it, "" means
            there is none.
        penultimate: Tap path of the penultimate feature, if the user names it.

    Raises:
        NetworkError: The named module is no classifier, it is not certain what the logits are
            computed of, or the network returns no logits.
    """
    traced = trace(module, images, classifier)
    head = heads.find(module, images, traced, classifier, penultimate)
    body = [c for c in traced.calls if head.began is None or c.ended < head.began]
    maps = [c.output.shape[2:] for c in body if c.output and isinstance(c.module, nn.Conv2d)]
    tokens = token_layout(module, images.shape[2:], [(h, w) for h, w in maps])
    taps, blocks = _stages(body, len(images), sqrt(images[0, 0].numel()), tokens.prefix or 0)
    norm = _norm_behind(blocks[-1], body) if blocks else None
    taps |= _pre_activations(taps, traced.calls)
    if blocks:
        taps |= _token_taps(norm or blocks[-1], tokens)
    if norm and len(blocks) > 1 and "patches" in taps:
        taps[PREVIOUS_PATCHES] = f"{blocks[-2].path}:{NORMALISED} patches"
    if head.penultimate:
        taps["penultimate"] = head.penultimate
    if head.dist_penultimate:
        taps[DIST_PENULTIMATE] = head.dist_penultimate
    if head.dist:
        taps["dist_logits"] = head.dist
    paths = tuple(block.path for block in blocks)
    return NetworkStructure(
        taps, head, traced.key, traced.output, paths, norm.path if norm else "", tokens
    )


def _is_prefix(call: Call, prefix: int) -> bool:
    """Return True if a module returns tokens, but no more than there are before the patches."""
    shape = call.output.shape if call.output is not None else ()
    return len(shape) == 3 and shape[1] <= prefix


def _token_taps(last: Call, tokens: TokenLayout) -> dict[str, str]:
    """Return the taps of the last tokens of a transformer, and of their parts."""
    assert last.output is not None
    return {part: f"{last.path}:{part}" for part in tokens.parts(last.output.shape[1])}


def _norm_behind(block: Call, calls: list[Call]) -> Call | None:
    """Return the norm whose input is the output of a block; None if there is none."""
    for call in sorted(calls, key=lambda c: c.began):
        if (
            call.began > block.ended
            and call.times == 1
            and "Norm" in type(call.module).__name__
            and call.source is not None
            and call.source.node is _node(block)
            and call.output is not None
            and call.source.shape == call.output.shape
        ):
            return call
    return None


def _stages(
    calls: list[Call], batch: int, side: float, prefix: int
) -> tuple[dict[str, str], list[Call]]:
    """Return the paths of stem and stages, and the blocks of a transformer of one resolution.

    Both are empty if there is no stem.
    """
    weighted = sorted((c for c in calls if isinstance(c.module, WEIGHTED)), key=lambda c: c.began)
    # What is computed for windows of the images (Swin) has more rows than the batch.
    readable = [c for c in calls if c.times == 1 and c.positions > 1 and c.batch == batch]
    # What holds no more than class tokens and registers, as the end of PiT, is no stage.
    readable = [c for c in readable if not _is_prefix(c, prefix)]
    stem = _stem(readable, calls, weighted)
    if stem is None:
        return {}, []
    stem_level = _level(stem, side)
    after = [c for c in readable if c.ended > stem.ended and _level(c, side) >= stem_level]
    levels = sorted(
        {_level(c, side) for c in after}
        & {_level(c, side) for c in weighted if c.ended > stem.ended and c.positions > 1}
    )
    chain: list[Call] = []
    if len(levels) == 1:
        chain = _chain(after)
        ends = _quarters(chain) if chain else [_outermost(after)]
    else:
        ends = [_outermost([c for c in after if _level(c, side) == level]) for level in levels]
        # None where images are so small that all maps have a single position.
        ends = _siblings(ends, after) if ends else []
    paths = {"stem": stem.path} | {f"stage{i}": c.path for i, c in enumerate(ends, 1)}
    of_tokens = all(c.output is not None and len(c.output.shape) == 3 for c in chain)
    return paths, chain if of_tokens else []


def _pre_activations(stages: Mapping[str, str], calls: list[Call]) -> dict[str, str]:
    """Return the tap of the input of each stage's last activation, of stages that end in one."""
    ends = {call.path: call for call in calls}
    taps = {}
    for name, path in stages.items():
        node = _node(ends[path])
        activations = [c for c in calls if _node(c) is node and _is_activation(c)]
        if name != "stem" and is_activation(node) and activations:
            last = activations[0]
            if ends[last.path] is last:  # of a module that is called several times, the last call
                side = "input" if last.times == 1 else "last input"
                taps[f"{name}/preact"] = f"{last.path}:{side}"
    return taps


def _node(call: Call) -> Any:
    return call.output.node if call.output is not None else None


def _is_activation(call: Call) -> bool:
    """Return True if a single module has computed its output, and not only passed it on."""
    changes = call.source is not None and call.source.node is not _node(call)
    return changes and not list(call.module.children())


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


def _level(call: Call, side: float) -> int:
    """Return how often the image was halved; class tokens and odd sizes do not matter."""
    return round(log2(side / max(call.positions, 1) ** 0.5))


def _outermost(calls: list[Call]) -> Call:
    """Return the outermost call, the last of equals; an unactivated one only if all are."""
    return min(calls, key=lambda c: (c.is_unactivated, c.depth, -c.ended))


def _chain(calls: list[Call]) -> list[Call]:
    """Return the longest chain of children with equal output shapes; empty if there is none."""
    chains: dict[tuple[str, torch.Size], list[Call]] = {}
    for call in calls:
        if call.output is not None and list(call.module.children()):
            chains.setdefault((call.parent, call.output.shape), []).append(call)
    # Of equal length the outer one: two blocks, not the two branches of the first.
    return max(chains.values(), key=lambda chain: (len(chain), -chain[0].depth), default=[])


def _quarters(chain: list[Call]) -> list[Call]:
    """Return the ends of the quarters of a chain."""
    ends = sorted({-(-len(chain) * quarter // 4) - 1 for quarter in range(1, 5)})
    return [chain[i] for i in ends]
