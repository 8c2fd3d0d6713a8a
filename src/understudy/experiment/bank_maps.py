"""Open the bank of a teaching detector's maps; refuse what no bank of maps can serve."""

import logging
from typing import cast

from understudy.bank import Bank, Contract, in_shards, make_shards, open_bank
from understudy.bank.map_replay import MapReplay
from understudy.bank.maps import (
    Canvases,
    MapBank,
    folder_of,
    open_padding,
)
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.distillation.stored_maps import padding
from understudy.errors import RecipeError
from understudy.experiment.build import Experiment
from understudy.models.detection import Detector, Resizing

LOGGER = logging.getLogger("understudy")


def open_maps(
    experiment: Experiment,
    teacher: Teacher,
    recipe: Recipe,
    *,
    create: bool = True,
    shards: bool = False,
    images: int | None = None,
) -> MapReplay:
    """Open the bank of a recipe for the maps of its teaching detector.

    Args:
        experiment: Has the images, and the student that resizes them.
        teacher: Computes what is not stored.
        recipe: Names the bank.
        create: Make it if there is none, and enlarge it if it has fewer views.
        shards: Make it in shards.
        images: Images of a shard of a new bank in shards.

    Raises:
        BankError: The place holds another bank, or none and it shall not be made.
        RecipeError: No bank can serve this student or these views.
    """
    canvases = sizes(experiment)
    contracts = map_contracts(experiment, teacher, recipe, canvases)
    place, few = recipe.bank.path, experiment.train.views.count is not None
    divided = shards or in_shards(place)
    vectors = open_padding(
        place,
        next(iter(contracts.values())),
        make=(lambda: padding(teacher)) if create and (shards or not divided) else None,
        in_shards=divided,
    )
    banks: list[Bank] = []
    for folder, contract in contracts.items():
        inner = f"{place.rstrip('/')}/{folder}"
        if shards:
            banks.append(make_shards(inner, contract, few_views=few, images=images))
        else:
            banks.append(open_bank(inner, contract, create=create and not divided))
    if len(banks) > 1:
        LOGGER.info(
            f"The images are padded to {len(banks)} sizes: the bank holds the teacher's maps of "
            "each image alone, without the padding of its batch."
        )
    return MapReplay(
        teacher, experiment.distiller.student, MapBank(banks, canvases, vectors),
        experiment.train.views,
    )  # fmt: skip


def sizes(experiment: Experiment) -> Canvases:
    """Return the size to which the student resizes and pads each training image.

    Raises:
        RecipeError: It draws the side at random.
    """
    student = experiment.distiller.student
    resizing = Resizing(cast(Detector, student).module.transform)
    if resizing.drawn:
        raise RecipeError(
            f"{student.name} draws the side of an image among several (min_size) in every step, so "
            "that its views are not fixed and no bank can hold the teacher's maps of them: give "
            "one min_size in student.options, or leave bank.path out."
        )
    return Canvases.of(experiment.images.train.sides(), resizing)


def map_contracts(
    experiment: Experiment, teacher: Teacher, recipe: Recipe, canvases: Canvases
) -> dict[str, Contract]:
    """Return folder → all that the maps of the images of one size depend on.

    Raises:
        RecipeError: The bank shall store what is not the teacher's maps.
    """
    _refuse_parts(recipe)
    student = cast(Detector, experiment.distiller.student)
    network, views = cast(Detector, teacher.network), experiment.train.views
    of_all = f"{Resizing(student.module.transform)}; {network.normalisation}"
    return {
        folder_of(canvas): Contract(
            teacher=experiment.digests["teacher"],
            input=f"{of_all}; {canvas[0]} × {canvas[1]}",
            precision=str(teacher.precision or "fp32").removeprefix("torch."),
            images=experiment.images.train.images_digest,
            transform=views.description,
            num_images=len(canvases.images(number)),
            num_views=views.count or 1 + recipe.bank.views,
            features=network.map_shapes(canvas),
            dtype=recipe.bank.dtype,
            scales="channel",
        )
        for number, canvas in enumerate(canvases.sizes)
    }


def _refuse_parts(recipe: Recipe) -> None:
    """Refuse to store a part of what is computed at the student's places, which are never twice."""
    if recipe.bank.codes:
        raise RecipeError(
            "bank.codes stores what methods compute of features, and those of a detector are read "
            "where the student looks, in other places in every step: set it to false."
        )
    if recipe.bank.top_logits is not None:
        raise RecipeError(
            "A bank of a detector holds its maps, from which logits are computed where the student "
            "looks: leave bank.top_logits out."
        )
