"""Taps: hooks that read the features of a network without changing what it computes."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from understudy.errors import NetworkError, suggestion
from understudy.models.token_grids import SELECTED, UNKNOWN, Select, TokenLayout, selection

DIST_PENULTIMATE = "penultimate/dist"
"""What enters the second classifier of a network that averages two, one for each of two tokens."""

_Module = TypeVar("_Module", bound=nn.Module)

Layout = Literal["as is", "channels last", "pooled", "pooled, channels last"]
"""How a tapped tensor becomes a feature: unchanged, NHWC → NCHW, or averaged to a vector."""


class Tap:
    """Forward hook that keeps one tensor of the current pass until `take` returns it.

    An object rather than a closure, so that a deep copy of a network has taps of its own.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        clone: bool,
        norm: nn.Module | None = None,
        select: Select | None = None,
    ) -> None:
        self.layout = layout
        self.clone = clone
        self.norm, self.select = norm, select
        self._tensor: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tap":
        """Copy the tap without the tensor that a pass outside of `features` has left in it."""
        # The norm is a part of the network, which `memo` knows by its copy.
        norm = deepcopy(self.norm, memo)
        return Tap(self.layout, clone=self.clone, norm=norm, select=self.select)

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        """Keep the tensor; `arguments` are args, kwargs and, after the call, the output."""
        tensor = _real(first_tensor(arguments[-1] if len(arguments) == 3 else arguments))
        self._tensor = tensor.clone() if self.clone and tensor is not None else tensor

    def take(self) -> Tensor:
        """Return the feature of the last pass, and release the tensor."""
        tensor, self._tensor = self._tensor, None
        assert tensor is not None
        return self.convert(tensor)

    def convert(self, tensor: Tensor) -> Tensor:
        """Convert the tapped tensor to the feature."""
        if self.norm is not None:
            # Not by a call, whose hooks would take it for the network's own.
            tensor = self.norm.forward(tensor)
        return to_feature(tensor if self.select is None else self.select(tensor), self.layout)


def take_features(taps: Mapping[str, Tap]) -> dict[str, Tensor]:
    """Return every feature of the last pass; of two classifier tokens `penultimate` is the mean."""
    features = {name: tap.take() for name, tap in taps.items()}
    if DIST_PENULTIMATE in features:
        features["penultimate"] = (features["penultimate"] + features[DIST_PENULTIMATE]) / 2
    return features


def attach_hook(module: nn.Module, path: str, hook: Callable[..., Any]) -> RemovableHandle:
    """Register `hook(module, args, kwargs[, output])` at `module.path` or `module.path:input`.

    A selection, as in `module.path:patches`, does not matter here: the hook sees all tokens.
    `module.path:last input` is the input of the last call in a pass, which the last hook sees.

    Raises:
        NetworkError: There is no module of that path.
    """
    inner, _, side = path.partition(":")
    modules = dict(module.named_modules())
    if inner not in modules or side not in ("", "input", "last input", *SELECTED):
        raise NetworkError(
            f"There is no {path!r} to tap in {type(module).__name__}{suggestion(inner, modules)}. "
            "A tap is 'module.path' (its output) or 'module.path:input', or, of a module that is "
            "called several times, 'module.path:last input'. Of a transformer's tokens, "
            "'module.path:patches' reads a part (cls, registers, patches), and "
            "'module.path:normalised' behind the last norm."
        )
    handle: RemovableHandle = (
        modules[inner].register_forward_pre_hook(hook, with_kwargs=True)
        if side.endswith("input")
        else modules[inner].register_forward_hook(hook, with_kwargs=True)
    )
    return handle


def build_taps(
    module: nn.Module,
    paths: Mapping[str, str],
    images: Tensor,
    pick: "Callable[[Any], Tensor | None] | None" = None,
    tokens: TokenLayout = UNKNOWN,
    norm: str = "",
) -> tuple[dict[str, Tap], dict[str, tuple[int, ...]], Tensor]:
    """Build taps in a dry pass; return them, the shapes of their features and the module's output.

    A module that would overwrite a tapped tensor in place has its `inplace` set to False; where a
    function overwrites the tensor instead, the tap clones it.

    Args:
        module: Changed in place as above.
        paths: Feature name → `module.path` or `module.path:input`.
        images: Two square images as the module takes them.
        pick: Returns the main tensor of what the module returns; default: the first one.
        tokens: Where the patches lie among its tokens.
        norm: Path of its last norm, for taps that are `normalised`.

    Raises:
        NetworkError: A tapped module is called never, or more than once in a pass and the tap is
            not its `last input`.
    """
    caught: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in paths}
    handles = [attach_hook(module, path, _catcher(caught[name])) for name, path in paths.items()]
    handles += [
        m.register_forward_pre_hook(_inplace_switch(caught), with_kwargs=True)
        for m in module.modules()
        if getattr(m, "inplace", False) is True
    ]
    try:
        output = dry_run(module, images, pick or first_tensor)
    finally:
        for handle in handles:
            handle.remove()
    for name, tensors in caught.items():
        if len(tensors) != 1 and not (tensors and paths[name].endswith(":last input")):
            raise NetworkError(
                f"The tap {name!r} on {paths[name]!r} is called {len(tensors)} times in a pass; "
                "tap a module that is called exactly once and gives a tensor."
            )
    taps, shapes = {}, {}
    last_norm = module.get_submodule(norm) if norm else None
    for name, [*_, (tensor, version)] in caught.items():
        # A version that has changed since the hook saw the tensor means that it was overwritten.
        part, selected_norm = selection(
            paths[name], tensor, tokens, last_norm, type(module).__name__
        )
        taps[name] = Tap(
            layout_of(name, tensor if part is None else part(tensor), selected=part is not None),
            clone=tensor._version != version,
            norm=selected_norm,
            select=part,
        )
        shapes[name] = tuple(taps[name].convert(tensor).shape[1:])
    return taps, shapes, output


def layout_of(name: str, tensor: Tensor, *, selected: bool = False) -> Layout:
    """Choose how a tensor of square images, or selected tokens, becomes the feature `name`."""
    if selected:
        return "pooled" if name == "penultimate" and tensor.ndim > 2 else "as is"
    if name == "penultimate" and tensor.ndim > 2:
        return "pooled, channels last" if is_channels_last(tensor.shape) else "pooled"
    return "channels last" if is_channels_last(tensor.shape) else "as is"


def is_channels_last(shape: torch.Size) -> bool:
    """Return True if a tensor of square images is a map `(batch, height, width, channels)`."""
    return len(shape) == 4 and shape[1] == shape[2] != shape[3]


def to_feature(tensor: Tensor, layout: Layout) -> Tensor:
    """Convert a tapped tensor to a feature."""
    # By the layout, not by the shape: later images may be no squares, whose shape tells nothing.
    if layout == "pooled, channels last":
        return tensor.mean((1, 2))
    if layout == "pooled":
        return tensor.mean((2, 3)) if tensor.ndim == 4 else pool_to_vector(tensor)
    return tensor.permute(0, 3, 1, 2) if layout == "channels last" else tensor


def pool_to_vector(tensor: Tensor) -> Float[Tensor, "batch dim"]:
    """Average a map or tokens over the positions; return a vector unchanged."""
    if tensor.ndim == 4:
        return tensor.mean((1, 2) if is_channels_last(tensor.shape) else (2, 3))
    return tensor.mean(1) if tensor.ndim == 3 else tensor


def _real(tensor: Tensor | None) -> Tensor | None:
    """Return real numbers for those of a quantised layer."""
    return tensor.dequantize() if tensor is not None and tensor.is_quantized else tensor


def first_tensor(value: Any) -> Tensor | None:
    """Return the main tensor of what a module takes or returns; None if there is none.

    In the outputs of Hugging Face models these are the logits, else the pooled vector, else the
    last tokens; in a tuple it is the first tensor (auxiliary classifiers come later).
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


def dry_run(
    module: nn.Module, images: Tensor, pick: Callable[[Any], Tensor | None] = first_tensor
) -> Tensor:
    """Run a forward pass to look at; return the main tensor of the output.

    Args:
        module: In evaluation mode.
        images: Images as the module takes them.
        pick: Returns the main tensor of what the module returns.

    Raises:
        NetworkError: The module fails on these images, or returns no tensor.
    """
    try:
        output = pick(module(images))
    except NetworkError:
        raise
    except Exception as error:
        raise NetworkError(
            f"{type(module).__name__} does not accept images of shape {tuple(images.shape)}: "
            f"{str(error).rstrip().removesuffix('.')}. {_remedy(error, images)}"
        ) from error
    if output is None:
        raise NetworkError(f"{type(module).__name__} returns no tensor; wrap it to return logits.")
    if output.ndim < 2 or len(output) != len(images):
        raise NetworkError(
            f"{type(module).__name__} returns a tensor of shape {tuple(output.shape)} for "
            f"{len(images)} images: it must return one row of logits for each, (batch, classes)."
        )
    return output


def _remedy(error: Exception, images: Tensor) -> str:
    """Say what to change where a network fails on the images of a dry pass."""
    channels = re.search(r"to have (\d+) channels?, but got (\d+) channels?", str(error))
    if channels and int(channels[2]) == images.shape[1]:
        number = f"{channels[1]} channel{'' if channels[1] == '1' else 's'}"
        values = f"{channels[1]} value{'' if channels[1] == '1' else 's'}"
        return (
            f"It takes {number}, not {channels[2]}: in a recipe give `mean` and `std` of {values} "
            f"each, in `wire` an `example` of {number}."
        )
    return "State the side it needs with `size`, or in `wire` by the `example`."


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode without gradients; restore every submodule's training flag afterwards."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, flag in flags:
            m.training = flag


@contextmanager
def override(module: nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the tensor at a tap path in every pass within the context.

    Args:
        module: The network.
        path: `module.path` or `module.path:input`.
        change: Returns the new tensor, or a vector that takes its place at every position.
    """

    def replace(x: Tensor) -> Tensor:
        if x.is_quantized:
            y = replace(x.dequantize())
            return torch.quantize_per_tensor(y, x.q_scale(), x.q_zero_point(), x.dtype)
        y = change(x)
        if y.ndim == x.ndim:
            return y
        if x.ndim == 3:
            return y[:, None].expand_as(x).contiguous()
        last = is_channels_last(x.shape)
        return (y[:, None, None] if last else y[:, :, None, None]).expand_as(x).contiguous()

    def hook(module: nn.Module, *arguments: Any) -> Any:
        if len(arguments) == 3:
            return _replaced(arguments[2], replace)
        args, kwargs = arguments
        return (_replaced(args, replace), kwargs) if args else (args, _replaced(kwargs, replace))

    handle = attach_hook(module, path, hook)
    try:
        yield
    finally:
        handle.remove()


def _replaced(value: Any, replace: Callable[[Tensor], Tensor]) -> Any:
    """Return what a module takes or returns with its first tensor replaced."""
    if isinstance(value, Tensor):
        return replace(value)
    items = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    for key, inner in items:
        if first_tensor(inner) is not None:
            items = [(k, _replaced(v, replace) if k == key else v) for k, v in items]
            break
    return dict(items) if isinstance(value, Mapping) else tuple(v for _, v in items)


def read_vector(module: nn.Module, path: str, images: Tensor) -> Tensor | None:
    """Return the vector at a tap path in a dry pass, the mean of a map or of tokens.

    None if there is no such tensor, or several.
    """
    tensor = _read(module, path, images)
    return None if tensor is None or tensor.ndim not in (2, 3, 4) else pool_to_vector(tensor)


def is_vector(module: nn.Module, path: str, images: Tensor) -> bool:
    """Return True if the tensor at a tap path has one position, so that no mean is taken."""
    tensor = _read(module, path, images)
    return tensor is not None and tensor.shape[2:].numel() == 1


def _read(module: nn.Module, path: str, images: Tensor) -> Tensor | None:
    tensors: list[tuple[Tensor, int]] = []
    handle = attach_hook(module, path, _catcher(tensors))
    try:
        dry_run(module, images)
    finally:
        handle.remove()
    return _real(tensors[0][0]) if len(tensors) == 1 else None


def copied(module: _Module, run: Callable[[], object]) -> _Module:
    """Return a deep copy of a module.

    Args:
        module: The module.
        run: Runs a forward pass of it.
    """
    try:
        return deepcopy(module)
    except RuntimeError:
        # The old form of weight norm keeps the weight of the last pass, which torch copies only
        # outside of a graph.
        with eval_mode(module):
            run()
        return deepcopy(module)


def _catcher(tensors: list[tuple[Tensor, int]]) -> Callable[..., None]:
    """Return a hook that appends the tapped tensor with its version at that moment."""

    def catch(module: nn.Module, *arguments: Any) -> None:
        tensor = first_tensor(arguments[-1] if len(arguments) == 3 else arguments)
        if tensor is not None:
            tensors.append((tensor, tensor._version))

    return catch


def _inplace_switch(caught: Mapping[str, list[tuple[Tensor, int]]]) -> Callable[..., None]:
    """Return a hook that switches off `inplace` where a module would overwrite a tapped tensor.

    Storages are compared, not tensors: through a view the tapped tensor is overwritten as well.
    """

    def switch_off(module: Any, *arguments: Any) -> None:
        tensor = first_tensor(arguments)
        tapped = {t.untyped_storage().data_ptr() for ts in caught.values() for t, _ in ts}
        if tensor is not None and tensor.untyped_storage().data_ptr() in tapped:
            module.inplace = False

    return switch_off
