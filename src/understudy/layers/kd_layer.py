"""Layers that stay in a student: where they sit, and the KD layer of letKD.

Gorgun, Gurbuz & Alatan, "Knowledge Distillation Layer that Lets the Student Decide", arXiv
2309.02843. Nothing here but torch is needed, so that a deployed student can carry a copy.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-12
"""Lower clamp of every length that divides."""


@final
class CosineConv(nn.Module):
    """A 1×1 convolution of unit rows with unit inputs, times a learned scale.

    Rows are drawn from N(0, 2 / inputs): their length does not matter, but sets how fast they turn.
    """

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (2 / inputs) ** 0.5)
        self.scale = nn.Parameter(torch.tensor([scale]))

    def kernel(self) -> Float[Tensor, "outputs inputs"]:
        """Rows of the length of the scale."""
        return self.scale * F.normalize(self.weight, dim=1, eps=_EPS)

    def forward(self, x: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs h w"]:
        """Scaled cosines at every location; 0 where x is."""
        return F.conv2d(F.normalize(x, dim=1, eps=_EPS), self.kernel()[..., None, None])


@final
class KDLayer(nn.Module):
    """Scores of `words` templates, and what the matched ones add to the map.

        a = score(x),   u = ReLU(BN(a)),   v = s₂ ⟨u/‖u‖, V/‖V‖⟩,   x̂ = x + α v

    Args:
        channels: Of the map.
        words: Templates K.
        alpha: α; with 0 the scores are computed and nothing is added.
        averaged: Add the mean of v over the map instead, which is the same wherever the map is
            averaged next: the second convolution then runs once an image, not once a location.
    """

    alpha: Float[Tensor, ""]
    averaged: Tensor

    def __init__(self, channels: int, words: int, *, alpha: float, averaged: bool) -> None:
        super().__init__()
        self.score = CosineConv(channels, words, 3.0)
        self.idle, self._averages = alpha == 0, averaged
        if self.idle:
            return
        self.norm = nn.BatchNorm2d(words)
        self.value = CosineConv(words, channels, 1.0)
        # Both are buffers, so that a state dict tells all there is to know of the layer.
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("averaged", torch.tensor(averaged))

    def forward(self, x: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels h w"]:
        """The map with what the templates add to it."""
        scores = self.score(x)
        return x if self.idle else x + self.alpha * self._meaning(scores)

    def _meaning(self, scores: Float[Tensor, "b words h w"]) -> Tensor:
        """v, or its mean as a 1×1 map.

        u is divided by its length after the convolution, or within the average: a normalised copy
        would be as large as the scores, and live until the backward pass.
        """
        u = F.relu(self.norm(scores), inplace=True)
        length = torch.linalg.vector_norm(u, dim=1, keepdim=True).clamp_min(_EPS)
        kernel = self.value.kernel()
        if not self._averages:
            value: Tensor = F.conv2d(u, kernel[..., None, None]) / length
            return value
        share = 1 / (length * length[0].numel())
        mean = u.flatten(2) @ share.flatten(2).mT
        return F.linear(mean.squeeze(2), kernel)[..., None, None]


@final
class Followed(nn.Module):
    """A module whose map passes through one more layer, in the place where the module stood."""

    def __init__(self, body: nn.Module, layer: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.body = body
        self.layer = layer
        self.channels_last = channels_last

    def forward(self, *arguments: object, **keywords: object) -> Tensor:
        """What the layer makes of the module's map."""
        x: Tensor = self.body(*arguments, **keywords)
        if not self.channels_last:
            return self.layer(x)  # type: ignore[no-any-return]
        return self.layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


def recorded(state: Mapping[str, Tensor]) -> Iterator[tuple[str, KDLayer]]:
    """Path and form of the layers that a state dict is of, outermost first, with new values."""
    mark = ".layer.score.weight"
    for path in sorted((k.removesuffix(mark) for k in state if k.endswith(mark)), key=len):
        words, channels = state[path + mark].shape
        alpha = float(state[f"{path}.layer.alpha"])
        averaged = bool(state[f"{path}.layer.averaged"])
        yield path, KDLayer(channels, words, alpha=alpha, averaged=averaged)


def drop_idle(module: nn.Module) -> None:
    """Take out, in place, the layers that add nothing."""
    _take_out(module, [p for p, block in _blocks(module) if getattr(block.layer, "idle", False)])


def without_layers(module: nn.Module) -> nn.Module:
    """A copy without any of these layers; the module itself if it has none."""
    paths = [path for path, _ in _blocks(module)]
    if not paths:
        return module
    bare = deepcopy(module)
    _take_out(bare, paths)
    return bare


def _blocks(module: nn.Module) -> Iterator[tuple[str, Followed]]:
    for path, block in module.named_modules():
        if isinstance(block, Followed):
            yield path, block


def _take_out(module: nn.Module, paths: list[str]) -> None:
    # Innermost first, so that the paths of those around it still hold.
    for path in reversed(paths):
        block = module.get_submodule(path)
        assert isinstance(block, Followed)
        module.set_submodule(path, block.body)
