"""Records which modules a forward pass calls: shapes, storages and graph nodes, without values."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.hooks import RemovableHandle

from understudy.models.outputs import Key, key_of_logits, pick
from understudy.models.taps import dry_run, first_tensor, is_channels_last, pool_to_vector

WEIGHTED = nn.Linear | nn.Conv2d
"""Layers with a weight that mixes channels."""


@dataclass(frozen=True)
class TensorRecord:
    """Shape and storage of a traced tensor, without its values, for which memory is too small."""

    shape: torch.Size
    storage: StorageWeakRef

    node: Any = None
    """`grad_fn`; the same object if two modules return the same tensor."""

    @classmethod
    def of(cls, value: object) -> "TensorRecord | None":
        """Record the main tensor of what a module takes or returns; None if there is none."""
        tensor = first_tensor(value)
        if tensor is None:
            return None
        # A weak reference does not keep the values, and keeps the storage's identity from being
        # given to a later tensor.
        storage = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        return cls(tensor.shape, storage, tensor.grad_fn)

    def shares_memory(self, other: "TensorRecord | None") -> bool:
        """Return True if both are the same values in memory, perhaps in another shape."""
        return (
            other is not None
            and self.storage == other.storage
            and self.shape.numel() == other.shape.numel()
        )


@dataclass(eq=False)
class Call:
    """One call of one module during the traced pass.

    Attributes:
        path: Path of the module.
        module: The module.
        source: Its input.
        began: Time step at which the call began.
        ended: Time step at which the call ended.
        output: Its output.
        times: How often the module is called in the pass.
        vector: Mean over the positions of the input of a layer that can be a classifier.
    """

    path: str
    module: nn.Module
    source: TensorRecord | None
    began: int
    ended: int = -1
    output: TensorRecord | None = None
    times: int = 1
    vector: Tensor | None = None

    @property
    def depth(self) -> int:
        """Depth in the module tree."""
        return self.path.count(".")

    @property
    def own_parameters(self) -> bool:
        """True if the module itself holds parameters, not only its children."""
        layers = [self.module, getattr(self.module, "parametrizations", None)]
        return any(
            next(m.parameters(recurse=m is not self.module), None) is not None
            for m in layers
            if isinstance(m, nn.Module)
        )

    @property
    def is_pointwise(self) -> bool:
        """True for a linear layer and for a 1×1 convolution."""
        convolves = isinstance(self.module, nn.Conv2d) and self.module.kernel_size == (1, 1)
        return isinstance(self.module, nn.Linear) or convolves

    @property
    def parent(self) -> str:
        """Path of the parent module."""
        return self.path.rpartition(".")[0]

    @property
    def batch(self) -> int:
        """Length of the output's first dimension."""
        return self.output.shape[0] if self.output is not None and self.output.shape else 0

    @property
    def positions(self) -> int:
        """Number of locations or tokens of the output; 0 if it is neither a map nor tokens."""
        if self.output is None:
            return 0
        shape = self.output.shape
        if is_channels_last(shape):
            return shape[1] * shape[2]
        if _embeds_patches(self.module):
            return shape[-2] * shape[-1]  # also of images that are no squares
        if len(shape) == 4:
            return shape[2] * shape[3] if shape[2] == shape[3] else 0
        return shape[1] if len(shape) == 3 else 0

    @property
    def is_unactivated(self) -> bool:
        """True for a single layer whose activation is still to come."""
        name = type(self.module).__name__
        return isinstance(self.module, WEIGHTED | nn.Identity) or (
            "Norm" in name and "Act" not in name and not list(self.module.children())
        )


@dataclass(frozen=True)
class TracedPass:
    """One forward pass of a network.

    Attributes:
        calls: Calls of all submodules, in the order they ended.
        output: The logits, or the main tensor of a network without a classifier.
        key: Where in what the network returns it is.
        record: The record of `output`.
        images: The leaf of the autograd graph.
    """

    calls: list[Call]
    output: Tensor
    key: Key
    record: TensorRecord
    images: Tensor


def trace(module: nn.Module, images: Tensor, classifier: str | None = None) -> TracedPass:
    """Run a forward pass, and record the calls of all submodules and the output.

    Args:
        module: In evaluation mode.
        images: Two square images as the module takes them.
        classifier: Path of the classifier, if the user names it.

    Raises:
        NetworkError: The module fails on these images, returns no tensor, or several of which it is
            not certain which are the logits.
    """
    recorder, keys, leaf = _Recorder(), [], images.detach().requires_grad_()

    def choose(value: Any) -> Tensor | None:
        key = key_of_logits(value, recorder.is_output_of(classifier), type(module).__name__)
        keys.append(key)
        return pick(value, key)

    handles = recorder.attach(module)
    try:
        # Only the graph is needed. The hooks drop the tensors saved for backward, which of a big
        # network would not fit into memory. A copy, since autograd lets no network overwrite a
        # leaf in place.
        with torch.enable_grad(), saved_tensors_hooks(lambda x: None, lambda x: x):
            output = dry_run(module, leaf.clone(), choose)
    finally:
        for handle in handles:
            handle.remove()
    record = TensorRecord.of(output)
    assert record is not None
    return TracedPass(recorder.counted(), output.detach(), keys[0], record, leaf)


class _Recorder:
    """Hooks that record every call of the submodules of a network."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._open: list[Call] = []
        self._clock = count()

    def attach(self, module: nn.Module) -> list[RemovableHandle]:
        """Attach the hooks; what computes a parametrised weight is part of its layer."""
        handles: list[RemovableHandle] = []
        for path, m in module.named_modules():
            if path and "parametrizations" not in path.split("."):
                begin = partial(self._begin, path)
                handles.append(m.register_forward_pre_hook(begin, with_kwargs=True))
                handles.append(m.register_forward_hook(self._end))
        return handles

    def is_output_of(self, path: str | None) -> Callable[[Tensor], bool]:
        """Return a function that is true for the tensor that the module at a path returned."""

        def is_output(x: Tensor) -> bool:
            record = TensorRecord.of(x)
            outputs = [c.output for c in self.calls if path and c.path == path]
            return record is not None and any(record.shares_memory(y) for y in outputs)

        return is_output

    def counted(self) -> list[Call]:
        """Return the calls in the order they ended, each with how often its module was called."""
        times = Counter(c.path for c in self.calls)
        for call in self.calls:
            call.times = times[call.path]
        return self.calls

    def _begin(self, path: str, m: nn.Module, *arguments: object) -> None:
        call = Call(path, m, TensorRecord.of(arguments), next(self._clock))
        source = first_tensor(arguments)
        if call.is_pointwise and source is not None and source.ndim in (2, 4):
            call.vector = pool_to_vector(source.detach()).clone()
        self._open.append(call)

    def _end(self, m: nn.Module, args: object, output: object) -> None:
        call = self._open.pop()
        call.ended, call.output = next(self._clock), TensorRecord.of(output)
        self.calls.append(call)


def _embeds_patches(module: nn.Module) -> bool:
    """Return True for a convolution of patches side by side, larger than a network halves maps by.

    A 1×1 convolution, and one that halves a map between two stages, have a kernel as large as
    their stride too.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride
        and min(module.kernel_size) > 2
    )
