"""Read YAML strictly: no key twice, no circles, nothing that grows when it is read. Loads no torch.

YAML lets a later key of the same name replace an earlier one, and lets a few lines stand for
billions of values by aliases of aliases. Both are refused, with the line.
"""

import re
from typing import Any, final

import yaml
from yaml.composer import ComposerError

_DEEPEST = 100
"""Levels of groups and lists; below what Python can descend."""

_MOST_NODES = 100_000
"""Keys and values, where an alias counts as all that it stands for."""


def from_yaml(text: str) -> Any:
    """Return the value of a YAML text: the content of a recipe, or the value of one flag.

    Raises:
        yaml.YAMLError: It is not YAML, or has a key twice, too many levels or too many values.
    """
    return yaml.load(text, _Loader)


@final
class _Loader(yaml.SafeLoader):
    """YAML 1.1, but numbers as in YAML 1.2, and strict."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node: check the keys of a group, and count what a node stands for."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _error(f"more than {_DEEPEST} levels of groups and lists", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self._sizes:
            if isinstance(event, yaml.AliasEvent):
                raise _error("an alias inside of itself", event)
            self._sizes[id(node)] = self._size(node)
            # Before keys are merged by `<<`, behind which a group may set them again.
            _check_keys(node)
        return node

    def _size(self, node: yaml.Node) -> int:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for pair in inner for part in (pair if isinstance(pair, tuple) else (pair,))]
        size = 1 + sum(self._sizes[id(part)] for part in parts)
        if size > _MOST_NODES:
            raise _error(f"aliases of more than {_MOST_NODES:,} values", node)
        return size


def _check_keys(node: yaml.Node) -> None:
    lines: dict[str, int] = {}
    keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    for key in keys:
        if key.value in lines if isinstance(key, yaml.ScalarNode) else False:
            raise _error(
                f"the key '{key.value}' stands in one group twice, in lines {lines[key.value]} and "
                f"{key.start_mark.line + 1}: leave one out, or merge the two",
                key,
            )
        if isinstance(key, yaml.ScalarNode):
            lines[key.value] = key.start_mark.line + 1


def _error(problem: str, at: Any) -> ComposerError:
    return ComposerError(None, None, problem, at.start_mark)


def _read_numbers_as_in_yaml_1_2() -> None:
    """To YAML 1.1, `5e-4` is a text, 010 is 8 and 1:30 is 90."""
    kinds = {
        "int": r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$",
        "float": r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
    }
    tags = {f"tag:yaml.org,2002:{kind}": pattern for kind, pattern in kinds.items()}
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in tags]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in tags.items():
        _Loader.add_implicit_resolver(tag, re.compile(pattern), [*"-+.0123456789"])


_read_numbers_as_in_yaml_1_2()
