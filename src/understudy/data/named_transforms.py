"""Transforms that a recipe names: those of torchvision, and functions of a user's own file.

    data:
      transforms:
        - RandAugment
        - {name: RandomErasing, p: 0.25}
        - {name: path/to/file.py:factory, strength: 2}
        - {name: RandomPerspective, before: true}

Entries act in their order on views of uint8, behind the crop, mirror and jitter of `data.augment`;
one with `before: true` acts on the whole image before all of these. `RandomErasing` and
`GaussianNoise`, and whatever comes after them, get floats in [0, 1]. Networks normalise afterwards.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.config.trust import file_of, transform_names
from understudy.data.source import content_digest
from understudy.errors import DataError, NameNotFound, RecipeError, UnderstudyError, memory_ran_out
from understudy.python_files import import_function

Entry = str | Mapping[str, Any]
"""Name of a transform, or a mapping with its `name` and its arguments."""

_WHITE = torch.tensor(255.0)
_MEAN, _STD = (
    torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
"""Mean and deviation of ImageNet, in which the published noise of random erasing is."""

_ALIASES = {"TrivialAugment": "TrivialAugmentWide"}
_CONTAINERS = ("Compose", "RandomApply", "RandomChoice", "RandomOrder")
"""Transforms of torchvision whose argument `transforms` is a list of others."""
_ENUMS = {"interpolation": v2.InterpolationMode, "policy": v2.AutoAugmentPolicy}
"""Arguments that YAML gives as text."""
_LEFT_OUT = {
    **dict.fromkeys(("MixUp", "CutMix"), "it mixes batches: set data.mixup or data.cutmix"),
    "Normalize": "networks normalise by themselves: set the key mean and std of a network",
    **dict.fromkeys(
        ("ToTensor", "ToImage", "ToPILImage", "PILToTensor", "ToPureTensor", "ToDtype"),
        "views are tensors of the right kind already: leave it out",
    ),
    **dict.fromkeys(("ConvertImageDtype", "Lambda"), "name a function of a file of yours instead"),
    **dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several images of one"),
}
"""Transforms of torchvision that no view can use → why."""


@final
class RandomErasing(v2.RandomErasing):  # type: ignore[misc]
    """Torchvision's random erasing, of values in [0, 1]: its random noise has ImageNet's mean.

    Published recipes erase after the normalisation, which comes later here. Boxes of objects stay.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw place, size and values of the rectangle."""
        params: dict[str, Any] = super().make_params(flat_inputs)
        if self.value is None and params["v"] is not None:
            params["v"] = (params["v"] * _STD + _MEAN).clamp(0, 1)
        return params

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Erase in an image; return anything else unchanged."""
        is_image = isinstance(inpt, tv_tensors.Image) or type(inpt) is Tensor
        return super().transform(inpt, params) if is_image else inpt


@final
class ToFloats(v2.Transform):  # type: ignore[misc]
    """Values of an image from 0 to 1 in place of whole numbers to 255."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Convert an image; return anything else unchanged."""
        is_image = isinstance(inpt, tv_tensors.Image) or type(inpt) is Tensor
        if not is_image or inpt.dtype != torch.uint8:
            return inpt
        return tv_tensors.wrap(inpt / _WHITE, like=inpt)


_OWN_CLASSES: dict[str, type[v2.Transform]] = {"RandomErasing": RandomErasing}
_OF_FLOATS = (v2.RandomErasing, v2.GaussianNoise)
"""Transforms for floats alone: torchvision would round the values that they write to 0."""


@final
class Step:
    """One transform of a recipe: called with an image, and for detection with its target.

    Args:
        entry: As in the recipe.

    Raises:
        NameNotFound: Torchvision has no such transform.
        RecipeError: No view can use it, it has other arguments, or its file or function is missing
            or fails.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = {"name": entry} if isinstance(entry, str) else dict(entry)
        self.label = str(self.entry.get("name", ""))
        arguments = {k: v for k, v in self.entry.items() if k not in ("name", "before")}
        self.before = bool(self.entry.get("before", False))
        self.transform = _built(self.label, arguments)
        self._is_own = any(file_of(name) for name in transform_names([self.entry]))

    def __call__(self, *sample: Any) -> Any:
        """Return the transformed image; with a target, both.

        Random numbers come from torch's generator, also those of Python and NumPy that a user's
        function draws.

        Raises:
            DataError: The transform fails.
        """
        try:
            if not self._is_own:
                return self.transform(*sample)
            with _other_generators_seeded():
                return self.transform(*sample)
        except UnderstudyError:
            raise
        except Exception as error:
            if memory_ran_out(error):
                raise
            raise DataError(
                f"data.transforms: {self.label} fails on an image of {_form(sample[0])}: {error}"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process import the function of a file itself."""
        return Step, (self.entry,)

    @property
    def needs_floats(self) -> bool:
        """True if it, or a transform in it, is for values from 0 to 1 alone."""
        inner = getattr(self.transform, "transforms", ())
        steps = [step for step in inner if isinstance(step, Step)]
        return isinstance(self.transform, _OF_FLOATS) or any(step.needs_floats for step in steps)


@final
class NamedTransforms:
    """The transforms of a recipe, built; false if there are none.

    Attributes:
        first: Those of whole images, before the resize or crop.
        last: Those of views, in order.
        description: All that they depend on, the digests of a user's files included.
    """

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        steps = [Step(entry) for entry in entries]
        self.first = _with_floats([step for step in steps if step.before])
        self.last = _with_floats([step for step in steps if not step.before])
        self.description = json.dumps([step.entry for step in steps], sort_keys=True, default=str)
        if files := digests(entries):
            self.description += f", {files}"

    def __bool__(self) -> bool:
        return bool(self.first or self.last)


def digests(entries: Sequence[Entry]) -> str:
    """Return digests of the user's files among some transforms, in order; empty without any."""
    files = filter(None, (file_of(name) for name in transform_names(entries)))
    return ", ".join(content_digest(file.read_bytes())[:16] for file in files if file.is_file())


def _built(name: str, arguments: dict[str, Any]) -> Callable[..., Any]:
    """Build one transform."""
    if file := file_of(name):
        factory = import_function(file, name.rpartition(":")[2], raising=RecipeError)
    else:
        factory = _of_torchvision(name)
        arguments = {key: _enum(key, value) for key, value in arguments.items()}
        inner = arguments.get("transforms")
        if name in _CONTAINERS and isinstance(inner, list | tuple):
            arguments["transforms"] = [Step(entry) for entry in inner]
    try:
        transform: Callable[..., Any] = factory(**arguments)
    except UnderstudyError:
        raise
    except Exception as error:
        takes = ", ".join(signature(factory).parameters)
        raise RecipeError(
            f"data.transforms: {name} cannot be built with {arguments}: {error}. It takes: {takes}."
        ) from error
    if not callable(transform):
        raise RecipeError(
            f"data.transforms: {name} returns {type(transform).__name__}; it must return a "
            "function of an image, a uint8 tensor (3, height, width)."
        )
    return transform


def _of_torchvision(name: str) -> type[v2.Transform]:
    """Return a class of `torchvision.transforms.v2`."""
    name = _ALIASES.get(name, name)
    if name in _LEFT_OUT:
        raise RecipeError(f"data.transforms cannot hold {name}: {_LEFT_OUT[name]}.")
    known = {
        key: value
        for key, value in vars(v2).items()
        if isinstance(value, type) and issubclass(value, v2.Transform) and value != v2.Transform
    }
    if name not in known:
        others = sorted(known.keys() - _LEFT_OUT.keys())
        raise NameNotFound(
            "transform of torchvision",
            name,
            others,
            "A function of your own is `path/to/file.py:function`.",
        )
    return _OWN_CLASSES.get(name, known[name])


def _enum(key: str, value: Any) -> Any:
    if key not in _ENUMS or not isinstance(value, str):
        return value
    try:
        return _ENUMS[key](value.lower())
    except ValueError as error:
        options = ", ".join(each.value for each in _ENUMS[key])
        raise RecipeError(f"data.transforms: {key} is {value!r}; it can be: {options}.") from error


def _with_floats(steps: Sequence[Step]) -> list[Callable[..., Any]]:
    """Return the steps, with a conversion to floats before the first one that needs them."""
    place = next((i for i, step in enumerate(steps) if step.needs_floats), None)
    if place is None:
        return list(steps)
    return [*steps[:place], ToFloats(), *steps[place:]]


@contextmanager
def _other_generators_seeded() -> Iterator[None]:
    """Seed the generators of Python and NumPy by torch's, then let them continue as before."""
    seed = int(torch.randint(2**32 - 1, ()))
    of_python, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _form(image: Any) -> str:
    if not isinstance(image, Tensor):
        return f"the type {type(image).__name__}"
    return f"{str(image.dtype).removeprefix('torch.')} and shape {tuple(image.shape)}"


NONE = NamedTransforms()
"""No transforms."""
