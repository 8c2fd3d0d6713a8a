"""Finds the two maps behind which a layer can be inserted into a network.

- `penultimate/map` is the last map: every path from the images to the output passes through it,
  and no weighted layer reads maps or tokens after it, only a vector that is pooled from it.
- `last_stage/first` is the output of the first block at that resolution: the first module with at
  least two weighted layers (or one, if none has two) through which every path to the last map
  passes.

A transformer of one resolution has blocks of tokens instead: `penultimate/map` is the last block
whose patches reach the output (the last one where the head averages patches; the one before where
it reads the class token), `last_stage/first` the first block of its last quarter, or the one before
`penultimate/map` if that is earlier.

A residual branch is no such module, because the shortcut bypasses it. A forward pass cannot show
that, so the autograd graph of one dry pass is searched.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from understudy.models.taps import dry_run, first_tensor, is_channels_last, override

_WEIGHTED = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class _Call:
    """One call of a module whose output depends on the images."""

    path: str
    module: nn.Module
    shape: torch.Size
    node: Any
    """`grad_fn` of its output; the same object if two modules return the same tensor."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Height and width of a map of more than one location; else empty."""
        if len(self.shape) != 4:
            return ()
        height, width = self.shape[1:3] if is_channels_last(self.shape) else self.shape[2:]
        return (height, width) if height * width > 1 else ()

    @property
    def has_positions(self) -> bool:
        """True if the output is a map or tokens."""
        return bool(self.grid) or len(self.shape) == 3


def find(module: nn.Module, images: Tensor, blocks: tuple[str, ...] = ()) -> dict[str, str]:
    """Return feature name → path of the module that computes it; empty for a network without.

    Args:
        module: In evaluation mode.
        images: Images as the module takes them.
        blocks: Paths of a transformer's blocks, first to last, for a network without such maps.
    """
    return _find_maps(module, images) or _find_blocks(module, images, blocks)


def _find_maps(module: nn.Module, images: Tensor) -> dict[str, str]:
    leaf = images.detach().requires_grad_()
    # Only the graph is needed. The hooks drop the tensors saved for backward, which of a big
    # network would not fit into memory.
    with torch.enable_grad(), saved_tensors_hooks(lambda x: None, lambda x: x):
        calls, output = _record(module, leaf)
    last = _last(calls, output, leaf) if output is not None else None
    if last is None:
        return {}
    last_path = _outermost(calls, last).path
    first = _first(calls, last, leaf)
    if first is None:
        return {"penultimate/map": last_path}
    first_path = _outermost(calls, first, last_path).path
    return {"last_stage/first": first_path, "penultimate/map": last_path}


def _find_blocks(module: nn.Module, images: Tensor, blocks: tuple[str, ...]) -> dict[str, str]:
    if len(blocks) < 2:
        return {}
    last = len(blocks) - 1 if _reads_patches(module, images, blocks[-1]) else len(blocks) - 2
    places = {"penultimate/map": blocks[last]}
    if last == 0:
        return places
    return {"last_stage/first": blocks[min(3 * len(blocks) // 4, last - 1)]} | places


def _reads_patches(module: nn.Module, images: Tensor, block: str) -> bool:
    """Return True if the output depends on the last token that a block returns, a patch."""

    def without_last(x: Tensor) -> Tensor:
        return torch.cat([x[:, :-1], torch.zeros_like(x[:, -1:])], 1)

    full = dry_run(module, images)
    with override(module, block, without_last):
        return not torch.equal(dry_run(module, images), full)


def _record(module: nn.Module, leaf: Tensor) -> tuple[list[_Call], Any]:
    """Return every module called once, in the order the calls ended, and the output's `grad_fn`."""
    calls: list[_Call] = []

    def note(path: str, m: nn.Module, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.grad_fn is not None:
            calls.append(_Call(path, m, tensor.shape, tensor.grad_fn))

    handles = [
        m.register_forward_hook(lambda m, args, output, path=path: note(path, m, output))
        for path, m in module.named_modules()
        if path
    ]
    try:
        # A copy, since autograd lets no network overwrite a leaf in place.
        output = dry_run(module, leaf.clone())
    finally:
        for handle in handles:
            handle.remove()
    times = Counter(call.path for call in calls)
    return [call for call in calls if times[call.path] == 1], output.grad_fn


def _last(calls: list[_Call], output: Any, leaf: Tensor) -> _Call | None:
    """Return the call that computes the last map; None if a later layer reads maps or tokens."""
    for call in reversed(calls):
        if call.grid and _all_paths_pass(call.node, output, leaf):
            return call
        if isinstance(call.module, _WEIGHTED) and call.has_positions:
            return None
    return None


def _first(calls: list[_Call], last: _Call, leaf: Tensor) -> _Call | None:
    """Return the call that computes the first block's output at the resolution of the last map."""
    weighted = [c.path for c in calls if isinstance(c.module, _WEIGHTED) and c.has_positions]
    for least in (2, 1):
        for call in calls:
            layers = sum(path.startswith(f"{call.path}.") for path in weighted)
            if (
                layers >= least
                and call.grid == last.grid
                and _all_paths_pass(call.node, last.node, leaf)
            ):
                return call
    return None


def _outermost(calls: list[_Call], call: _Call, excluded: str = "") -> _Call:
    """Return the outermost container that returns the same tensor, except the one at `excluded`.

    The call itself if there is none.
    """
    twins = [c for c in calls if c.node is call.node and not isinstance(c.module, nn.Identity)]
    containers = [c for c in twins if c.path != excluded and list(c.module.children())]
    return min(containers or [call], key=lambda c: c.path.count("."))


def _all_paths_pass(node: Any, end: Any, leaf: Tensor) -> bool:
    """Return True if every path in the graph from `end` back to the images passes through `node`.

    Searched are all nodes that can be reached from `end` without passing `node`.
    """
    ahead, visited = [end], {node}
    while ahead:
        current = ahead.pop()
        if current in visited:
            continue
        visited.add(current)
        # The graph's node of a leaf, AccumulateGrad, holds the leaf as `variable`.
        if getattr(current, "variable", None) is leaf:
            return False
        ahead += [source for source, _ in current.next_functions if source is not None]
    return True
