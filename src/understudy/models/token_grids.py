"""Finds where the patches of an image lie among its tokens: what is before them, and their grid.

The number of tokens before the patches is what timm declares (`num_prefix_tokens`), else that of
the parameters that every library names alike (`cls_token`, `register_tokens`, …). The grid is that
of the patch embedding: image over patch size, as timm (NaFlexViT too) and Hugging Face declare it,
else the map of a convolution of the dry pass. Class tokens come first, registers behind them, and
patches last, row by row, in all these libraries.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.features import TokenGrid

SELECTIONS = ("tokens", "cls", "registers", "patches")
"""What of a tensor of tokens a tap can read: `module.path:patches`."""

NORMALISED = "normalised"
"""Prefix of such a selection: behind the network's last norm, `module.path:normalised patches`."""

SELECTED = (*SELECTIONS, NORMALISED, *(f"{NORMALISED} {part}" for part in SELECTIONS))
"""What may follow the colon of a tap on tokens."""

Select = Callable[[Tensor], Tensor]

_MOST = 16
"""Most tokens before the patches that a trace alone may tell."""

_CLASS = ("cls_token", "class_token", "class_embedding", "cls_tokens", "cls_embedding")
_DISTILLATION = ("dist_token", "distillation_token")
_REGISTERS = ("reg_token", "register_tokens", "reg_tokens", "registers", "storage_tokens")


@dataclass(frozen=True)
class TokenLayout:
    """Tokens before the patches of a network, and sizes that the grid of the patches may have.

    Attributes:
        classes: Number of class tokens, which come first; None if unknown.
        registers: Number of registers, right before the patches; None if unknown.
        prefix: Number of all tokens before the patches; None if unknown.
        declared: Sizes that the network declares for the images of the dry pass, likeliest first.
        traced: Sizes of the maps of its convolutions in the dry pass.
    """

    classes: int | None = None
    registers: int | None = None
    prefix: int | None = None
    declared: tuple[tuple[int, int], ...] = ()
    traced: tuple[tuple[int, int], ...] = ()

    def grid(self, tokens: int) -> TokenGrid | None:
        """Return where the patches lie among so many tokens; None if that is unknown."""
        sizes = (*self.declared, *self.traced)
        prefixes = (0,) if self.prefix is None else (self.prefix, 0)
        # All sizes with one prefix first: 4 × 4 behind five tokens are not 3 × 7.
        for prefix, (height, width) in product(prefixes, sizes):
            if tokens == prefix + height * width:
                return TokenGrid(prefix, height, width)
        return self._by_trace(tokens) if self.prefix is None else None

    def numbers(self, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Return prefix, height and width of a feature of tokens; None of another shape."""
        grid = self.grid(shape[0]) if len(shape) == 2 else None
        return None if grid is None else (grid.prefix, grid.height, grid.width)

    def _by_trace(self, tokens: int) -> TokenGrid | None:
        fitting = [size for size in self.traced if 0 < tokens - size[0] * size[1] <= _MOST]
        if fitting:
            height, width = max(fitting, key=lambda size: size[0] * size[1])
            return TokenGrid(tokens - height * width, height, width)
        return TokenGrid.square(tokens)

    def describe(self) -> str:
        """Return prefix and patches as part of a sentence; "" if nothing is known."""
        if not self.declared and self.prefix is None:
            return ""
        size = " × ".join(map(str, self.declared[0])) if self.declared else "of unknown number"
        behind = f"{self.prefix or 'no'} other token{'s' * (self.prefix != 1)}"
        return f"the network's patches are {size}, behind {behind}"

    def select(self, what: str, tokens: int, owner: str) -> Select:
        """Return a function that selects a part of so many tokens.

        Args:
            what: One of `SELECTIONS`.
            tokens: Number of tokens.
            owner: Name of the network for errors.

        Raises:
            NetworkError: These tokens have no such part.
        """
        if what == "tokens":
            return _all
        grid = self.grid(tokens)
        if what == "patches" and grid is not None:
            return grid.as_map
        if what == "cls" and grid is not None and self._classes(grid):
            return partial(_vector, self._classes(grid))
        if what == "registers" and grid is not None and self._registers(grid):
            return partial(_between, grid.prefix - self._registers(grid), grid.prefix)
        raise NetworkError(
            f"{owner} has no {what!r} among these {tokens} tokens: "
            f"{self.describe() or 'neither its prefix tokens nor the grid of its patches is known'}"
            ". Name the tokens without a selection."
        )

    def parts(self, tokens: int) -> Iterator[str]:
        """Yield the selections that so many tokens have."""
        grid = self.grid(tokens)
        yield "tokens"
        if grid is not None:
            yield from ["cls"] * bool(self._classes(grid))
            yield from ["registers"] * bool(self._registers(grid))
            yield "patches"

    def _classes(self, grid: TokenGrid) -> int:
        # A single token that nothing names is a class token.
        unnamed = int(grid.prefix == 1 and not self.registers)
        return min(unnamed if self.classes is None else self.classes, grid.prefix)

    def _registers(self, grid: TokenGrid) -> int:
        unnamed = grid.prefix if grid.prefix > 1 else 0
        return min(unnamed if self.registers is None else self.registers, grid.prefix)


UNKNOWN = TokenLayout()
"""Layout of a network of which nothing is known."""


def _all(x: Tensor) -> Tensor:
    return x


def _vector(count: int, x: Tensor) -> Tensor:
    return x[:, :count].flatten(1)


def _between(start: int, end: int, x: Tensor) -> Tensor:
    return x[:, start:end]


def token_layout(
    module: nn.Module, size: Iterable[int], traced: Iterable[tuple[int, int]] = ()
) -> TokenLayout:
    """Return what a network's attributes and parameters tell of its tokens.

    Args:
        module: The network.
        size: Height and width of the images of the dry pass.
        traced: Sizes of the maps of its convolutions in that pass.
    """
    counts = {kind: _count(module, kind) for kind in (_CLASS, _DISTILLATION, _REGISTERS)}
    total = sum(counts.values())
    declared = next(_integers(module, "num_prefix_tokens"), None)
    known = total > 0 or declared is not None
    return TokenLayout(
        classes=counts[_CLASS] if known else None,
        registers=counts[_REGISTERS] if known else None,
        prefix=declared if declared is not None else (total or None),
        declared=tuple(dict.fromkeys(_declared_sizes(module, tuple(size)))),
        traced=tuple(dict.fromkeys(traced)),
    )


def selection(
    path: str, tensor: Tensor, tokens: TokenLayout, norm: nn.Module | None, owner: str
) -> tuple[Select | None, nn.Module | None]:
    """Return what a tap path selects of the tokens, and the norm before; None for neither.

    Args:
        path: `module.path:SELECTION`.
        tensor: What is tapped there.
        tokens: Where the patches lie among the network's tokens.
        norm: The network's last norm.
        owner: Name of the network for errors.

    Raises:
        NetworkError: There are no tokens, no such part or no norm.
    """
    side = path.partition(":")[2]
    if side not in SELECTED:
        return None, None
    if tensor.ndim != 3:
        raise NetworkError(
            f"The tap {path!r} of {owner} selects among tokens (batch, tokens, dim), but there is "
            f"a tensor of shape {tuple(tensor.shape)}: tap it as {path.partition(':')[0]!r}."
        )
    normalised = side.startswith(NORMALISED)
    if normalised and norm is None:
        raise NetworkError(
            f"The tap {path!r} asks for the last norm of {owner}, but none was found behind its "
            "last block: leave out 'normalised'."
        )
    what = side.removeprefix(NORMALISED).strip() or "tokens"
    return tokens.select(what, tensor.shape[1], owner), norm if normalised else None


def grids(
    tokens: TokenLayout, taps: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, TokenGrid]:
    """Return where the patches lie in each feature of tokens, as far as is known.

    A map of patches that a tap has selected has a grid without prefix.
    """
    result = {}
    for name, shape in shapes.items():
        selected = taps.get(name, "").partition(":")[2]
        if len(shape) == 3 and selected.endswith("patches"):
            result[name] = TokenGrid(0, shape[1], shape[2])
        grid = tokens.grid(shape[0]) if len(shape) == 2 else None
        if grid is not None and not selected.endswith("registers"):
            result[name] = grid
    return result


def has_prefix_tokens(module: nn.Module) -> bool:
    """Return True if a network declares tokens before its patches, as transformers do."""
    return token_layout(module, (1, 1)).prefix is not None


def _count(module: nn.Module, names: tuple[str, ...]) -> int:
    """Return the number of tokens in the first parameter of one of these names."""
    for path, parameter in module.named_parameters():
        if path.rpartition(".")[2] in names:
            return int(parameter.shape[-2]) if parameter.ndim > 1 else 1
    return 0


def _integers(module: nn.Module, name: str) -> Iterator[int]:
    for each in module.modules():
        value = getattr(each, name, None)
        if isinstance(value, int):
            yield value


def _declared_sizes(module: nn.Module, size: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the grid of every patch size that the network or its configuration declares."""
    for each in module.modules():
        for holder in (each, getattr(each, "config", None)):
            patch = _pair(getattr(holder, "patch_size", None))
            if patch is not None and all(
                0 < p <= side for p, side in zip(patch, size, strict=True)
            ):
                yield size[0] // patch[0], size[1] // patch[1]


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    return (value[0], value[1]) if is_pair and all(isinstance(x, int) for x in value) else None
