"""Probe the features of a trained student by k-NN and a linear classifier.

Weighted k-NN is that of DINO (Caron et al., 2021, arXiv 2104.14294): every test image is classified
by the training images whose penultimate features have the largest cosine, with votes
exp(cosine / 0.07). The linear probe is logistic regression (`metrics/linear_probe.py`), where
published tables train by SGD on augmented images. Numbers of different protocols cannot be
compared: where training images have no labels, test images are classified by each other, which is
said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from understudy import tasks
from understudy.config.image_size import Size
from understudy.config.recipe import Recipe, key_of
from understudy.data import Source, lost_workers_explained
from understudy.distillation.device_names import find_device
from understudy.errors import DataError, RecipeError
from understudy.experiment import build, networks
from understudy.experiment.evaluate import student_of
from understudy.experiment.images import Images, read_images
from understudy.experiment.loaders import Loaders
from understudy.experiment.outputs import collect
from understudy.experiment.run_directory import Run
from understudy.metrics import linear_probe
from understudy.metrics.neighbours import knn_accuracy, knn_scores, nearest
from understudy.models.base import Wrapped
from understudy.tasks import Outputs
from understudy.training.devices import accelerator

KS = (10, 20, 100, 200)
"""Numbers of neighbours of published tables, of which 20 is the one reported."""


@dataclass(frozen=True)
class Probed:
    """What the features of networks tell of the classes, in percent.

    Attributes:
        accuracies: Network (`student`, `teacher`, `teacher dino`) → `k-NN 20` and so on, and
            `linear`.
        stored: Images with labels that the others are classified by.
        images: Test images with labels.
        classes: Number of classes.
        protocol: Which images are classified by which, in words.
    """

    accuracies: dict[str, dict[str, float]]
    stored: int
    images: int
    classes: int
    protocol: str


@lost_workers_explained()
def probe(
    run: str | Path | Run,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
) -> Probed:
    """Probe the student of a run, and its teachers, on the images of the run or on others.

    Args:
        run: Run, or its directory.
        overrides: Keys of the recipe to replace, such as `{"data.root": "other_images"}`. The
            classes may be any: the classifier of the student is not used.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.

    Raises:
        RunError: There is no run or no student in the directory.
        RecipeError: The student is a detector, or its images have several classes.
        DataError: No images have labels, or all have one class.
    """
    find_device(device)
    run = run if isinstance(run, Run) else Run(Path(run))
    stored = run.recipe
    recipe = Recipe.load(replace(stored, trust=False), overrides)
    networks.check_trust(recipe, stored, run.path)
    if tasks.find(recipe.task, recipe.training).truth != "class":
        raise RecipeError(
            f"A probe needs one class for each image; {run.path} was trained for the task "
            f"{recipe.task}: use `understudy evaluate`."
        )
    # Read as without labels: classes may be others than those that the student was trained for.
    recipe = replace(recipe.with_methods({}), task="none")
    images = read_images(recipe, tasks.find("none"))
    train, test = (_labelled(source) for source in (images.train, images.test))
    _check_labels(test)
    by_train = images.test is not images.train and _tells_classes(train)
    student = student_of(run, trust=recipe.trust)
    size = recipe.data.size or images.test.size or build.LARGE
    teachers = networks.teachers(recipe, (), tasks.find("none"), view_size=size)
    named = {networks.called(key_of(name)): network for name, network in teachers.items()}
    accuracies = {
        role: _accuracies(recipe, network, images, size, device=device, by_train=by_train)
        for role, network in ({"student": student} | named).items()
    }
    fifth = "the test images by each other (linear: each fifth by the others), as no training "
    return Probed(
        accuracies,
        stored=len(train if by_train else test),
        images=len(test),
        classes=int(test.max()) + 1,
        protocol="test images by training images" if by_train else f"{fifth}image has a label",
    )


def _accuracies(
    recipe: Recipe,
    network: Wrapped,
    images: Images,
    size: Size,
    *,
    device: str | None,
    by_train: bool,
) -> dict[str, float]:
    task = tasks.find("none")
    devices = accelerator(recipe.training, device, student=network)
    loaders = Loaders(recipe, task, size, rank=0, world=1)
    network.to(devices.device)

    def features(source: Source) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, " rows"]]:
        batches = loaders.test(source).single_pass(augmented=False)
        return _known(collect(network, batches, devices, task))

    queries, labels = features(images.test)
    stored, their_labels = features(images.train) if by_train else (queries, labels)
    classes = int(max(labels.max(), their_labels.max())) + 1
    near = nearest(queries, stored, max(KS), leave_out_self=not by_train)
    accuracies = {
        f"k-NN {k}": 100 * knn_accuracy(knn_scores(near, their_labels, classes, k=k), labels)
        for k in KS
        if k <= len(stored) - (not by_train)
    }
    if by_train:
        predicted = linear_probe.fit(stored, their_labels, classes).scores(queries).argmax(1)
    else:
        predicted = linear_probe.predicted_by_folds(queries, labels, classes)
    return accuracies | {"linear": 100 * float((predicted == labels).double().mean())}


def _known(outputs: Outputs) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, " rows"]]:
    known = outputs["labels"] >= 0
    return outputs["penultimate"][known], outputs["labels"][known]


def _labelled(source: Source) -> Int[Tensor, " rows"]:
    return source.labels[source.labels >= 0]


def _tells_classes(labels: Int[Tensor, " rows"]) -> bool:
    return bool(len(labels)) and bool((labels != labels[0]).any())


def _check_labels(labels: Int[Tensor, " rows"]) -> None:
    if not len(labels):
        raise DataError(
            "A probe needs test images with labels, and none of these has one: give others, such "
            "as --data.root FOLDER with test/<class>/…."
        )
    if not _tells_classes(labels):
        raise DataError(
            f"All {len(labels)} test images with a label are of one class; a probe needs two."
        )
