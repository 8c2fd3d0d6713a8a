"""Searches an autograd graph for the last matrix products of a network, and for what they read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from understudy.models.traced_pass import Call, TracedPass

_PRODUCTS = (
    *("AddmmBackward", "MmBackward", "BmmBackward", "BaddbmmBackward", "MvBackward"),
    *("CdistBackward", "LinearBackward", "ConvolutionBackward", "MkldnnConvolution"),
)
_ACTIVATIONS = ("Relu", "Hardtanh", "Tanh", "Gelu", "Silu", "Hardswish", "LeakyRelu", "Elu", "Mish")
_RESHAPES = (
    *("View", "Reshape", "Squeeze", "Unsqueeze", "Alias", "Clone", "UnsafeView", "Copy"),
    *("Select", "Slice", "Permute", "Transpose", "TBackward", "ToCopy"),
)
_AVERAGES = ("Mean", "AdaptiveAvgPool", "AvgPool")
_FINAL = {
    "LogSoftmax": "log_softmax",
    "Softmax": "softmax",
    "LogSigmoid": "log_sigmoid",
    "Sigmoid": "sigmoid",
}
_SCALES = (
    *("MulBackward", "DivBackward", "NegBackward", "AddBackward", "SubBackward", "RsubBackward"),
    *("Clamp", "Stack", "Cat", "Unbind", "Split", "SumBackward", "Index"),
)
"""Scales, shifts, and what averages several tensors."""
_LOGARITHMS = {"softmax": "log_softmax", "sigmoid": "log_sigmoid"}


def _name(node: Any) -> str:
    return type(node).__name__


def _is(node: Any, names: Iterable[str]) -> bool:
    return _name(node).startswith(tuple(names))


def is_activation(node: Any) -> bool:
    """Return True if a node of an autograd graph is an activation."""
    return _is(node, _ACTIVATIONS)


@dataclass(frozen=True, eq=False)
class LastProducts:
    """The products of a graph that no other product follows.

    Attributes:
        nodes: Their nodes.
        after: Nodes between them and the output, that included.
        live: Nodes that depend on the images.
        batch: Number of images.
        end: Node of the output.
    """

    nodes: frozenset[Any]
    after: frozenset[Any]
    live: frozenset[Any]
    batch: int
    end: Any

    @classmethod
    def of(cls, traced: TracedPass) -> "LastProducts | None":
        """Search the graph of a pass; None if the output is not in a graph."""
        end = traced.record.node
        if end is None:
            return None
        live = _live(end, traced.images)
        ahead, after, nodes = [end], set(), set()
        while ahead:
            node = ahead.pop()
            if node in after or node in nodes or node not in live:
                continue
            if _is(node, _PRODUCTS) or _compares(node, traced.output.shape[-1]):
                nodes.add(node)
                continue
            after.add(node)
            ahead += [source for source, _ in node.next_functions if source is not None]
        return cls(frozenset(nodes), frozenset(after), live, len(traced.output), end)

    @staticmethod
    def final_function(traced: TracedPass) -> str:
        """Return the name of the softmax or sigmoid, or its logarithm, that the output is of.

        Also if it is scaled or shifted by what does not depend on the images, or the mean of
        several, as of an ensemble; "" if there is none.
        """
        end = traced.record.node
        if end is None:
            return ""
        live = _live(end, traced.images)
        functions, seen, ahead = set[str](), set[Any](), [(end, False)]
        while ahead:
            node, logarithm = ahead.pop()
            if node in seen:
                continue
            seen.add(node)
            name = next((v for k, v in _FINAL.items() if _is(node, [k])), "")
            if name or not _is(node, (*_RESHAPES, *_SCALES, *_AVERAGES, "LogBackward")):
                functions.add(_LOGARITHMS.get(name, "") if logarithm else name)
                continue
            inner = logarithm or _is(node, ["LogBackward"])
            ahead += [(source, inner) for source, _ in node.next_functions if source in live]
        return functions.pop() if len(functions) == 1 else ""

    @property
    def count(self) -> int:
        """Number of the products."""
        return len(self.nodes)

    @property
    def read_maps(self) -> bool:
        """True if one of them is computed at several positions, or if there is none."""
        return not self.nodes or any(self._has_positions(node) for node in self.nodes)

    @property
    def all_read_maps(self) -> bool:
        """True if none of them is computed once per image."""
        return all(self._has_positions(node) for node in self.nodes)

    @property
    def are_activated(self) -> bool:
        """True if an activation follows: what comes out is a feature."""
        return any(_is(node, _ACTIVATIONS) for node in self.after)

    def are_output_of(self, node: Any) -> bool:
        """Return True if the output is what the product of a node gives, or its spatial mean."""
        return self.nodes == {node} and all(_is(n, (*_RESHAPES, *_AVERAGES)) for n in self.after)

    def vectors(self, calls: list[Call]) -> Iterator[tuple[str, int]]:
        """Iterate over tap path and time of the tensors before the products, the last ones first.

        Every path from the images to the output passes through such a tensor. Of equal tensors
        only the first one is returned, which comes before a dropout.
        """
        tensors = [
            (c.began, f"{c.path}:input", c.source, c.began) for c in calls if c.times == 1
        ] + [(c.ended, c.path, c.output, c.ended + 1) for c in calls if c.times == 1]
        first: dict[Any, tuple[int, str, Any, int]] = {}
        for entry in sorted(tensors, key=lambda e: e[0]):
            if entry[2] is not None and entry[2].node in self.live:
                first.setdefault(entry[2].node, entry)
        candidates = [
            e
            for e in first.values()
            if e[2].shape[0] == self.batch
            and e[2].node not in self.after | self.nodes
            and not self._bypass(e[2].node)
        ]
        candidates.sort(reverse=True, key=lambda e: e[0])
        vectors = [e for e in candidates if prod(e[2].shape[2:]) == 1]
        maps = [e for e in candidates if e not in vectors]
        for _, tap, _, began in vectors[:1] + maps[:1]:
            yield tap, began

    def _has_positions(self, node: Any) -> bool:
        shape: tuple[int, ...] = tuple(node._input_metadata[0].shape)
        if len(shape) == 4:
            return prod(shape[2:]) > 1
        return len(shape) == 2 and shape[0] != self.batch

    def _bypass(self, node: Any) -> bool:
        """Return True if a path from the output to the images does not pass a node."""
        return any(
            getattr(n, "variable", None) is not None for n in _reached(self.end, self.live, node)
        )


def _compares(node: Any, classes: int) -> bool:
    """Return True if features are compared with a parameter for each class (prototypes)."""
    for source, _ in node.next_functions:
        while source is not None and _is(source, _RESHAPES):
            source = source.next_functions[0][0]
        shape: tuple[int, ...] = tuple(getattr(getattr(source, "variable", None), "shape", ()))
        if len(shape) > 1 and classes in shape[:-1] and shape[-1] != classes:
            return True
    return False


def _live(end: Any, leaf: Any) -> frozenset[Any]:
    """Return the nodes that depend on a leaf."""
    users: dict[Any, list[Any]] = {}
    ahead, seen, start = [end], {end}, None
    while ahead:
        node = ahead.pop()
        if getattr(node, "variable", None) is leaf:
            start = node
        for source, _ in node.next_functions:
            if source is not None:
                users.setdefault(source, []).append(node)
                if source not in seen:
                    seen.add(source)
                    ahead.append(source)
    live, ahead = set(), [start] if start is not None else []
    while ahead:
        node = ahead.pop()
        if node not in live:
            live.add(node)
            ahead += users.get(node, [])
    return frozenset(live)


def _reached(end: Any, live: frozenset[Any], barrier: Any) -> Iterator[Any]:
    """Iterate over the live nodes reached from the output without passing a node."""
    ahead, seen = [end], {barrier}
    while ahead:
        node = ahead.pop()
        if node in seen or node not in live:
            continue
        seen.add(node)
        yield node
        ahead += [source for source, _ in node.next_functions if source is not None]
