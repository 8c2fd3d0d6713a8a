"""The two maps at which a layer can be put into a convolutional network, found by a traced pass.

- `penultimate/map` is the last map, after which only its average, or a vector, matters: all that
  the network says passes through it, and no weighted layer works on maps or tokens after it.
- `last_stage/first` is the output of the first block at that resolution: of the first module with
  at least two weighted layers (or one, if none has two) through which all that follows passes.

A residual branch is no such module, because the shortcut passes it by: the graph that gradients
would take tells.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from understudy.models.taps import first_tensor, is_channels_last, run

_WEIGHTED = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class _Call:
    """One call of a module that gives a tensor which depends on the images."""

    path: str
    module: nn.Module
    shape: torch.Size
    node: Any
    """Where the gradient of its output would go first; equal for equal tensors."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Height and width of a map of more than one location, else nothing."""
        if len(self.shape) != 4:
            return ()
        height, width = self.shape[1:3] if is_channels_last(self.shape) else self.shape[2:]
        return (height, width) if height * width > 1 else ()

    @property
    def spread(self) -> bool:
        """Whether it gives something for every location: a map or tokens."""
        return bool(self.grid) or len(self.shape) == 3


def find(module: nn.Module, images: Tensor) -> dict[str, str]:
    """Feature name → path of the module that gives it; nothing for a network without maps.

    Args:
        module: In eval mode.
        images: As the module wants them.
    """
    leaf = images.detach().requires_grad_()
    # The graph is wanted, the numbers are not: those of a big network would not fit.
    with torch.enable_grad(), saved_tensors_hooks(lambda x: None, lambda x: x):
        calls, output = _record(module, leaf)
    last = _last(calls, output, leaf) if output is not None else None
    if last is None:
        return {}
    found = {"penultimate/map": _outermost(calls, last).path}
    first = _first(calls, last, leaf)
    if first is not None:
        found = {
            "last_stage/first": _outermost(calls, first, found["penultimate/map"]).path
        } | found
    return found


def _record(module: nn.Module, leaf: Tensor) -> tuple[list[_Call], Any]:
    """Every module called once, in the order they ended, and where the output comes from."""
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
        # Not the leaf itself, which a network may not overwrite.
        output = run(module, leaf.clone())
    finally:
        for handle in handles:
            handle.remove()
    times = Counter(call.path for call in calls)
    return [call for call in calls if times[call.path] == 1], output.grad_fn


def _last(calls: list[_Call], output: Any, leaf: Tensor) -> _Call | None:
    for call in reversed(calls):
        if call.grid and _all_pass(call.node, output, leaf):
            return call
        if isinstance(call.module, _WEIGHTED) and call.spread:
            return None
    return None


def _first(calls: list[_Call], last: _Call, leaf: Tensor) -> _Call | None:
    weighted = [c.path for c in calls if isinstance(c.module, _WEIGHTED) and c.spread]
    for least in (2, 1):
        for call in calls:
            held = sum(path.startswith(f"{call.path}.") for path in weighted)
            if held >= least and call.grid == last.grid and _all_pass(call.node, last.node, leaf):
                return call
    return None


def _outermost(calls: list[_Call], call: _Call, taken: str = "") -> _Call:
    """The module farthest out that gives the same tensor, and was not taken before."""
    twins = [c for c in calls if c.node is call.node and not isinstance(c.module, nn.Identity)]
    free = [c for c in twins if c.path != taken and list(c.module.children())]
    return min(free or [call], key=lambda c: c.path.count("."))


def _all_pass(node: Any, end: Any, leaf: Tensor) -> bool:
    """Whether every way from `end` back to the images leads through `node`."""
    ahead, seen = [end], {node}
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        if getattr(here, "variable", None) is leaf:
            return False
        ahead += [before for before, _ in here.next_functions if before is not None]
    return True
