"""Build the bank of a recipe in shards: any part of it, by any number of processes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState

from understudy.bank import Shard, Shards, make_shards, missing, share
from understudy.bank.replay import RecordKeys, Replay
from understudy.config.recipe import Recipe
from understudy.data import Loader, lost_workers_explained
from understudy.errors import RecipeError
from understudy.experiment import bank_attach
from understudy.experiment.bank_build import (
    batches,
    built,
    check_room,
    computed,
    refuse_without_bank,
)
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
        bank: The bank.
        total: Number of shards of the whole bank.
        own: Number of shards of this part.
        built: Number of those that this call built; the others were complete.
        complete: Number of shards that are complete now, of all parts.
    """

    bank: Shards
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
    contract = bank_attach.contract(experiment, teacher, recipe)
    views, processes = experiment.train.views, PartialState()
    with processes.main_process_first():
        few = views.count is not None
        bank = make_shards(recipe.bank.path, contract, few_views=few, images=images)
    replay = Replay(teacher, bank, views)
    shards = bank.division.shards(bank.contract)
    own = share(share(shards, part), (processes.process_index + 1, processes.num_processes))
    complete, listed = bank.complete, time.monotonic()
    todo = [shard for shard in own if shard not in complete]
    begin(_plan_line(bank, len(shards), len(own), len(todo)))
    done, total = 0, sum(shard.records for shard in todo)
    if bank.store.local is not None:
        remedy = "or set bank.dtype to fp16 or int8"
        check_room(bank, total, what="The rest of this part", remedy=remedy)
    absent = set(todo)
    for shard in todo:
        # Another process may have built some meanwhile, as one of another number of parts.
        if time.monotonic() - listed > _LISTING_HOLDS:
            absent, listed = set(missing(bank, todo)), time.monotonic()
        if shard in absent:
            counted = _counted(replay, experiment.train, shard, done, total, watch)
            bank.publish(shard, counted)
        done += shard.records
        watch(done, total)
    still_absent = len(missing(bank, shards))
    return Built(bank, len(shards), len(own), len(todo), len(shards) - still_absent)


def _counted(
    replay: Replay,
    loader: Loader,
    shard: Shard,
    done: int,
    total: int,
    watch: Callable[[int, int], None],
) -> Iterator[Features]:
    """Yield the teacher's features of a shard in the order of its records, and count them."""
    keys = _keys(shard)
    for (index, _), features in zip(keys, computed(replay, loader, keys), strict=True):
        yield features
        done += len(index)
        watch(done, total)


def _keys(shard: Shard) -> list[RecordKeys]:
    """Return the numbers of a shard's records, in batches that depend on the shard alone."""
    index = torch.arange(shard.image, shard.image + shard.images)
    views = range(shard.view, shard.view + shard.views)
    return [key for view in views for key in batches(index, torch.full_like(index, view))]


def _plan_line(bank: Shards, total: int, own: int, todo: int) -> str:
    division, contract = bank.division, bank.contract
    size = division.images * division.views * contract.bytes / contract.records
    return (
        f"Shards of {division.images:,} images × {division.views:,} "
        f"view{'s' * (division.views > 1)} ({size / 1e6:.3g} MB): {total:,} in all, {own:,} in "
        f"this part, of which {own - todo:,} are complete already."
    )
