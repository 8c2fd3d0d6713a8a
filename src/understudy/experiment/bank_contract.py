"""The contract of a recipe's bank: what its records depend on, of whole images or of maps."""

from typing import cast

from understudy.bank import Contract
from understudy.bank.maps import Canvases, folder_of
from understudy.config.recipe import Bank as BankKeys
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.errors import RecipeError
from understudy.experiment.build import Experiment, teacher_digest
from understudy.models.detection import Detector, Resizing


def bank_of(recipe: Recipe, teacher: str) -> BankKeys:
    """Return the keys of a teacher's bank by the teacher's name, empty for one without."""
    return recipe.teachers[teacher].bank if teacher else recipe.bank


def name_of(experiment: Experiment, teacher: Teacher) -> str:
    """Return the name of a teacher of an experiment."""
    every = experiment.distiller.distillations
    return next(each.name for each in every if each.teacher is teacher)


def contracts(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> dict[str, Contract]:
    """Return the contracts of a recipe's bank: one, or of a detector's maps one for each size.

    Raises:
        RecipeError: No bank can store what this teacher gives for these views.
    """
    if experiment.task.truth == "objects":
        canvases = sizes(experiment)
        return map_contracts(experiment, teacher, recipe, canvases)
    return {"": contract(experiment, teacher, recipe)}


def contract(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Contract:
    """Return all that the records of a recipe's bank of whole images depend on.

    Raises:
        RecipeError: Images are mixed.
    """
    if mixes(recipe):
        raise RecipeError(
            "A bank stores what the teacher gives for single images and cannot serve mixed ones: "
            "leave bank.path out, or set data.mixup and data.cutmix to 0."
        )
    name = name_of(experiment, teacher)
    keys, shapes = bank_of(recipe, name), teacher.network.shapes
    return _contract(
        experiment,
        teacher,
        name,
        keys,
        input=str(teacher.network.input),
        num_images=len(experiment.images.train),
        features={feature: shapes[feature] for feature in keys.features if feature in shapes},
    )


def _contract(
    experiment: Experiment,
    teacher: Teacher,
    name: str,
    keys: BankKeys,
    *,
    input: str,
    num_images: int,
    features: dict[str, tuple[int, ...]],
) -> Contract:
    """Return a contract by what differs between banks of whole images and of a detector's maps."""
    views = experiment.train.views
    return Contract(
        teacher=experiment.digests[teacher_digest(name)],
        input=input,
        precision=str(teacher.precision or "fp32").removeprefix("torch."),
        images=experiment.images.train.images_digest,
        transform=views.description,
        num_images=num_images,
        num_views=views.count or 1 + keys.views,
        features=features,
        dtype=keys.dtype,
        top_logits=keys.top_logits,
        scales="channel",
    )


def map_contracts(
    experiment: Experiment, teacher: Teacher, recipe: Recipe, canvases: Canvases
) -> dict[str, Contract]:
    """Return folder → all that the maps of the images of one size depend on.

    Raises:
        RecipeError: The bank shall store what is not the teacher's maps.
    """
    _refuse_parts(recipe)
    student = cast(Detector, experiment.distiller.student)
    network = cast(Detector, teacher.network)
    of_all = f"{Resizing(student.module.transform)}; {network.normalisation}"
    name = name_of(experiment, teacher)
    return {
        folder_of(canvas): _contract(
            experiment,
            teacher,
            name,
            bank_of(recipe, name),
            input=f"{of_all}; {canvas[0]} × {canvas[1]}",
            num_images=len(canvases.images(number)),
            features=network.map_shapes(canvas),
        )
        for number, canvas in enumerate(canvases.sizes)
    }


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


def mixes(recipe: Recipe) -> bool:
    """Return True if the teacher gets mixed images, of which a bank can store nothing."""
    return bool(recipe.data.mixup or recipe.data.cutmix)
