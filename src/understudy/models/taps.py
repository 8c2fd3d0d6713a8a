"""Taps: where the features of a network are read, without changing what it computes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from understudy.errors import NetworkError, suggestion

OTHER_TOKEN = "penultimate/dist"
"""What enters the second classifier of a network that averages two, one for each of two tokens."""

Layout = Literal["as is", "channels last", "pooled"]
"""How a tapped tensor becomes a feature: unchanged, NHWC → NCHW, or averaged to a vector."""


class Tap:
    """A hook that holds the tensor of the current pass until it is taken.

    An object rather than a closure, so that a deep copy of a network reads into taps of its own.
    """

    def __init__(self, layout: Layout, *, clone: bool) -> None:
        self.layout = layout
        self.clone = clone
        self._tensor: Tensor | None = None

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        """Called with (args, kwargs) before a module runs, with its output as well after it."""
        tensor = first_tensor(arguments[-1] if len(arguments) == 3 else arguments)
        self._tensor = tensor.clone() if self.clone and tensor is not None else tensor

    def take(self) -> Tensor:
        """The feature of the pass just made; the tap lets go of it."""
        tensor, self._tensor = self._tensor, None
        assert tensor is not None
        return arrange(tensor, self.layout)


def taken(taps: Mapping[str, Tap]) -> dict[str, Tensor]:
    """Every feature of the pass just made; of two tokens that count, `penultimate` is the mean."""
    found = {name: tap.take() for name, tap in taps.items()}
    if OTHER_TOKEN in found:
        found["penultimate"] = (found["penultimate"] + found[OTHER_TOKEN]) / 2
    return found


def attach(module: nn.Module, place: str, hook: Callable[..., Any]) -> RemovableHandle:
    """Register `hook(module, args, kwargs[, output])` at `module.path` or `module.path:input`.

    Raises:
        NetworkError: There is no module of that path.
    """
    path, _, side = place.partition(":")
    known = dict(module.named_modules())
    if path not in known or side not in ("", "input"):
        raise NetworkError(
            f"There is no {place!r} to tap in {type(module).__name__}{suggestion(path, known)}. "
            "A tap is 'module.path' (its output) or 'module.path:input'."
        )
    handle: RemovableHandle = (
        known[path].register_forward_pre_hook(hook, with_kwargs=True)
        if side
        else known[path].register_forward_hook(hook, with_kwargs=True)
    )
    return handle


def settle(
    module: nn.Module, paths: Mapping[str, str], images: Tensor
) -> tuple[dict[str, Tap], dict[str, tuple[int, ...]], Tensor]:
    """Taps that read what was computed, the shapes they read, and the module's output.

    A module that would overwrite a tapped tensor has its in-place switch turned off; where a tensor
    is overwritten by a function instead, the tap clones it.

    Raises:
        NetworkError: A tapped module is called twice or never in a pass.
    """
    caught: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in paths}
    handles = [attach(module, place, _catcher(caught[name])) for name, place in paths.items()]
    handles += [
        m.register_forward_pre_hook(_switch_off(caught), with_kwargs=True)
        for m in module.modules()
        if getattr(m, "inplace", False) is True
    ]
    try:
        output = run(module, images)
    finally:
        for handle in handles:
            handle.remove()
    for name, tensors in caught.items():
        if len(tensors) != 1:
            raise NetworkError(
                f"The tap {name!r} on {paths[name]!r} is called {len(tensors)} times in a pass; "
                "tap a module that is called exactly once and gives a tensor."
            )
    taps, shapes = {}, {}
    for name, [(tensor, version)] in caught.items():
        taps[name] = Tap(layout_of(name, tensor), clone=tensor._version != version)
        shapes[name] = tuple(arrange(tensor, taps[name].layout).shape[1:])
    return taps, shapes, output


def layout_of(name: str, tensor: Tensor) -> Layout:
    """What must happen to the tensor of a square image before it is the feature `name`."""
    if name == "penultimate" and tensor.ndim > 2:
        return "pooled"
    return "channels last" if is_channels_last(tensor.shape) else "as is"


def is_channels_last(shape: torch.Size) -> bool:
    """Whether a tensor of a square image is a map `(batch, height, width, channels)`."""
    return len(shape) == 4 and shape[1] == shape[2] != shape[3]


def arrange(tensor: Tensor, layout: Layout) -> Tensor:
    """A tapped tensor as a feature."""
    if layout == "pooled":
        return vector(tensor)
    return tensor.permute(0, 3, 1, 2) if layout == "channels last" else tensor


def vector(tensor: Tensor) -> Float[Tensor, "batch dim"]:
    """A map or tokens averaged over the positions; a vector as it is."""
    if tensor.ndim == 4:
        return tensor.mean((1, 2) if is_channels_last(tensor.shape) else (2, 3))
    return tensor.mean(1) if tensor.ndim == 3 else tensor


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that matters in what a module returns or receives; None if there is none.

    Of the outputs of Hugging Face models these are the logits, else the pooled vector, else the
    last tokens; of tuples the first tensor (auxiliary classifiers come later).
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        keys = ("logits", "pooler_output", "last_hidden_state", *value)
        value = [value[key] for key in keys if key in value]
    if isinstance(value, list | tuple):
        for item in value:
            tensor = first_tensor(item)
            if tensor is not None:
                return tensor
    return None


def run(module: nn.Module, images: Tensor) -> Tensor:
    """A dry pass.

    Raises:
        NetworkError: The module fails on these images, or returns no tensor.
    """
    try:
        output = first_tensor(module(images))
    except Exception as error:
        raise NetworkError(
            f"{type(module).__name__} does not accept images of shape {tuple(images.shape)}: "
            f"{error} State the side it wants with `size`."
        ) from error
    if output is None:
        raise NetworkError(f"{type(module).__name__} returns no tensor; wrap it to return logits.")
    return output


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every module's own training flag comes back afterwards."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, flag in flags:
            m.training = flag


def _catcher(tensors: list[tuple[Tensor, int]]) -> Callable[..., None]:
    def catch(module: nn.Module, *arguments: Any) -> None:
        tensor = first_tensor(arguments[-1] if len(arguments) == 3 else arguments)
        if tensor is not None:
            tensors.append((tensor, tensor._version))

    return catch


def _switch_off(caught: Mapping[str, list[tuple[Tensor, int]]]) -> Callable[..., None]:
    def switch_off(module: Any, *arguments: Any) -> None:
        tensor = first_tensor(arguments)
        tapped = {t.untyped_storage().data_ptr() for ts in caught.values() for t, _ in ts}
        if tensor is not None and tensor.untyped_storage().data_ptr() in tapped:
            module.inplace = False

    return switch_off
