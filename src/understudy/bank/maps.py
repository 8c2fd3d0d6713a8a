"""A bank of a teaching detector's maps: a bank for every size to which images are padded.

    manifest.json     the teacher, its input, and the vector of each map where images are padded
    544x800/          a bank of the images that are padded to 544 × 800: a table, or in shards

The teacher sees each image alone, resized and padded as the student would resize and pad it alone,
so that a record depends on its image and its view, and not on the other images of a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Int64
from torch import Tensor

from understudy import files
from understudy.bank._bank import Bank
from understudy.bank._store import Store, read_manifest
from understudy.bank.manifest import Contract, refuse_other
from understudy.errors import BankError
from understudy.features import Features
from understudy.models.detection import Resizing

LAYOUT, LAYOUT_IN_SHARDS = "maps by size", "shards of maps by size"
_MANIFEST = "manifest.json"

Canvas = tuple[int, int]
"""Height and width of an image after it was resized and padded."""


@final
@dataclass(frozen=True)
class Canvases:
    """Size to which each image of a source is padded, if it is alone.

    Attributes:
        sizes: All sizes that occur, sorted.
        of_image: Number of the size of each image.
    """

    sizes: tuple[Canvas, ...]
    of_image: Int64[Tensor, " images"]

    @classmethod
    def of(cls, sides: Int64[Tensor, "images 2"], resizing: Resizing) -> "Canvases":
        """Return the sizes of images from their height and width."""
        distinct, inverse = torch.unique(sides, dim=0, return_inverse=True)
        canvases = [resizing.canvas(height, width) for height, width in distinct.tolist()]
        sizes = sorted(set(canvases))
        numbers = torch.tensor([sizes.index(canvas) for canvas in canvases], dtype=torch.int64)
        return cls(tuple(sizes), numbers[inverse])

    def images(self, number: int) -> Int64[Tensor, " images"]:
        """Return the images that are padded to one of the sizes, in order."""
        return (self.of_image == number).nonzero().flatten()

    @cached_property
    def position(self) -> Int64[Tensor, " images"]:
        """Place of each image among those of its size."""
        places = torch.empty_like(self.of_image)
        for number in range(len(self.sizes)):
            images = self.images(number)
            places[images] = torch.arange(len(images))
        return places


@dataclass(frozen=True)
class MapBank:
    """The banks of a teacher's maps, one for every size.

    Attributes:
        banks: A bank for each of the sizes.
        canvases: Size of each image.
        padding: Vector of each map where an image is padded.
    """

    banks: Sequence[Bank]
    canvases: Canvases
    padding: Features

    def filled(self) -> int:
        """Count the stored records."""
        return sum(bank.filled() for bank in self.banks)


def folder_of(canvas: Canvas) -> str:
    """Return the name of the folder of a size."""
    return f"{canvas[0]}x{canvas[1]}"


def open_padding(
    place: str,
    contract: Contract,
    *,
    make: Callable[[], Mapping[str, Tensor]] | None,
    in_shards: bool,
) -> Features:
    """Return the vectors of padding of a bank of maps.

    Args:
        place: Folder or address of the bank.
        contract: That of any of its sizes.
        make: Computes them for a bank that does not exist; None makes none.
        in_shards: Form of a bank that is made.

    Raises:
        BankError: There is another bank, or none and it shall not be made.
    """
    store = Store(place)
    stored = read_manifest(store)
    if stored is None:
        if make is None:
            raise BankError(
                f"There is no bank in {store.place}, which is empty or does not exist: check "
                "bank.path, or fill one with `understudy bank build`."
            )
        _publish(store, contract, make(), in_shards)
        stored = read_manifest(store) or {}
    layout = stored.get("layout")
    if layout not in (LAYOUT, LAYOUT_IN_SHARDS):
        raise BankError(
            f"{store.place} holds a bank of features of whole images, and this one would hold a "
            "detector's maps: name another folder by bank.path."
        )
    if in_shards and layout == LAYOUT:
        raise BankError(
            f"{place} holds a bank that training fills: leave --shards out, or name another folder "
            "by bank.path."
        )
    refuse_other(stored, _root(contract), store.place)
    try:
        return {name: torch.tensor(values) for name, values in stored["padding"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BankError(f"{store.place}/{_MANIFEST} is damaged: it has no 'padding'.") from error


def _publish(
    store: Store, contract: Contract, padding: Mapping[str, Tensor], in_shards: bool
) -> None:
    layout = LAYOUT_IN_SHARDS if in_shards else LAYOUT
    values = {name: x.float().cpu().tolist() for name, x in padding.items()}
    content: dict[str, Any] = {"layout": layout} | _root(contract) | {"padding": values}
    store.publish(_MANIFEST, files.as_json(content, indent=1).encode())


def _root(contract: Contract) -> dict[str, Any]:
    """Return what all sizes of a bank have in common."""
    return {
        "teacher": contract.teacher,
        "precision": contract.precision,
        "images": contract.images,
    }


def refuse_maps(layout: str, place: str) -> None:
    """Refuse a bank of maps where one of features of whole images is opened.

    Raises:
        BankError: It is one.
    """
    if layout in (LAYOUT, LAYOUT_IN_SHARDS):
        raise BankError(
            f"{place} holds a detector's maps, not features of whole images: name another folder "
            "by bank.path."
        )
