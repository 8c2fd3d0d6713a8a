"""Build the bank of a recipe in shards: any part of it, by any number of processes."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from accelerate import PartialState

from understudy.bank import Shard, Shards, is_remote, missing, normal, share
from understudy.bank.replay import RecordKeys
from understudy.config.recipe import Recipe
from understudy.data import lost_workers_explained
from understudy.errors import RecipeError
from understudy.experiment import bank_attach
from understudy.experiment.bank_build import built, check_room, refuse_without_bank
from understudy.experiment.bank_parts import BankPart, parts_of
from understudy.features import Features
from understudy.training.missing_operations import missing_operations_explained

Part = tuple[int, int]
"""Which part, counted from 1, of how many."""

_LISTING_HOLDS = 60.0
"""Seconds before what is complete is listed again, which takes many requests for a large bank.

A shard that another process has built in between is built twice, which harms nothing.
"""


@dataclass(frozen=True)
class Built:
    """Result of `fill_shards`.

    Attributes:
        place: Folder or address of the bank.
        banks: The bank: one, or of a detector's maps one for each size of images.
        total: Number of shards of the whole bank.
        own: Number of shards of this part.
        built: Number of those that this call built; the others were complete.
        complete: Number of shards that are complete now, of all parts.
    """

    place: str
    banks: list[Shards]
    total: int
    own: int
    built: int
    complete: int


@lost_workers_explained()
@missing_operations_explained()
def fill_shards(
    recipe: Recipe,
    part: Part = (1, 1),
    *,
    images: int | None = None,
    data: Any = None,
    device: str | None = None,
    begin: Callable[[str], None] = lambda line: None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Built:
    """Build the shards of one part of a bank that are not complete.

    No part waits for another, or knows of it. Under torchrun, the processes share the part.

    Args:
        recipe: Names the bank, the teacher and the images.
        part: Which part to build, counted from 1, of how many.
        images: Images of a shard; default: as the bank has it, or else as many as are handy.
        data: Images of a program, as for `train`.
        device: As for `train`.
        begin: Called once, with what is about to be built.
        watch: Called after each batch with the number of records done and of all to build.

    Raises:
        BankError: The place holds another bank, or cannot be written.
        RecipeError: There is no such part, or the recipe names no bank or no teacher.
    """
    refuse_without_bank(recipe)
    if not 1 <= part[0] <= part[1]:
        raise RecipeError(f"There is no part {part[0]} of {part[1]}: parts count from 1.")
    experiment, teacher = built(recipe, device, data)
    processes = PartialState()
    with processes.main_process_first():
        replay = bank_attach.open_shards(experiment, teacher, recipe, images)
    pieces = [
        _Piece(each, bank, shard)
        for each in parts_of(replay, experiment.train)
        if isinstance(bank := each.bank, Shards)
        for shard in bank.division.shards(bank.contract)
    ]
    own = share(share(pieces, part), (processes.process_index + 1, processes.num_processes))
    todo, listed = [piece for piece in own if not piece.complete], time.monotonic()
    begin(_plan_line(pieces, len(own), len(todo)))
    done, total = 0, sum(piece.shard.records for piece in todo)
    if not is_remote(recipe.bank.path):
        remedy = "or set bank.dtype to fp16 or int8"
        needed = sum(piece.bytes for piece in todo)
        check_room(recipe.bank.path, needed, what="The rest of this part", remedy=remedy)
    absent = set(todo)
    for piece in todo:
        # Another process may have built some meanwhile, as one of another number of parts.
        if time.monotonic() - listed > _LISTING_HOLDS:
            absent, listed = set(_missing(todo)), time.monotonic()
        if piece in absent:
            piece.bank.publish(piece.shard, _counted(piece, done, total, watch))
        done += piece.shard.records
        watch(done, total)
    banks = list(dict.fromkeys(piece.bank for piece in pieces))
    complete = len(pieces) - len(_missing(pieces))
    return Built(
        normal(recipe.bank.path),
        banks,
        len(pieces),
        len(own),
        len(todo),
        complete,
    )


@final
@dataclass(frozen=True)
class _Piece:
    """A shard of a bank, with what computes its records."""

    part: BankPart
    bank: Shards
    shard: Shard

    @property
    def complete(self) -> bool:
        """True if the shard was complete when the bank was opened, or was built since."""
        return self.shard in self.bank.complete

    @property
    def bytes(self) -> int:
        """Bytes of its records."""
        return self.shard.records * self.bank.contract.stored_bytes


def _missing(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Return those shards that are not complete, as their stores say now."""
    by_bank: dict[Shards, list[_Piece]] = {}
    for piece in pieces:
        by_bank.setdefault(piece.bank, []).append(piece)
    absent = {
        bank: set(missing(bank, [piece.shard for piece in each])) for bank, each in by_bank.items()
    }
    return [piece for piece in pieces if piece.shard in absent[piece.bank]]


def _counted(
    piece: _Piece, done: int, total: int, watch: Callable[[int, int], None]
) -> Iterator[Features]:
    """Yield the teacher's features of a shard in the order of its records, and count them."""
    keys = _keys(piece)
    for (index, _), features in zip(keys, piece.part.compute(keys), strict=True):
        yield features
        done += len(index)
        watch(done, total)


def _keys(piece: _Piece) -> list[RecordKeys]:
    """Return the numbers of a shard's records, in batches that depend on the shard alone."""
    shard = piece.shard
    index = torch.arange(shard.image, shard.image + shard.images)
    views = range(shard.view, shard.view + shard.views)
    return [
        key for view in views for key in piece.part.batches(index, torch.full_like(index, view))
    ]


def _plan_line(pieces: Sequence[_Piece], own: int, todo: int) -> str:
    banks = list(dict.fromkeys(piece.bank for piece in pieces))
    largest = max(pieces, key=lambda piece: piece.bytes)
    division, sizes = largest.bank.division, len(banks)
    return (
        f"Shards of {'up to ' * (sizes > 1)}{division.images:,} images × {division.views:,} "
        f"view{'s' * (division.views > 1)} ({_size(largest) / 1e6:.3g} MB)"
        f"{f', of images of {sizes} sizes' * (sizes > 1)}: {len(pieces):,} in all, {own:,} in "
        f"this part, of which {own - todo:,} are complete already."
    )


def _size(piece: _Piece) -> int:
    """Return the bytes of a whole shard of a bank."""
    division = piece.bank.division
    return division.images * division.views * piece.bank.contract.stored_bytes
