"""The recipe that is examined, and what several checks look at: each fact is computed once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Literal, final

from accelerate import Accelerator

from understudy import tasks
from understudy.batch import Batch
from understudy.checks.messages import kept
from understudy.checks.plan import Plan
from understudy.checks.trial import Bench, Trial
from understudy.config.recipe import Recipe
from understudy.data import Loader
from understudy.errors import UnderstudyError
from understudy.experiment import build, defaults
from understudy.experiment.balance import balanced
from understudy.experiment.build import Experiment, Loaded
from understudy.experiment.images import Images, read_images
from understudy.experiment.outputs import collect
from understudy.tasks import Outputs, Task
from understudy.training.devices import ComputeSettings, accelerator, resolve
from understudy.training.threads import choose

SplitName = Literal["train", "validation", "test"]

LONG_SECONDS, SHORT_SECONDS = 60.0, 20.0
"""Time of the long and the short form, on two cores."""

_MEASURED_IMAGES = 1024
"""Training images on which methods measure the teacher; in a run they measure it on all."""


@dataclass(frozen=True)
class Placed:
    """An experiment on its device, without a bank.

    Attributes:
        experiment: Everything the recipe names.
        accelerator: Device and precision.
        settings: Resolved compute settings.
    """

    experiment: Experiment
    accelerator: Accelerator
    settings: ComputeSettings


@final
class Examined:
    """What the checks of one recipe look at, computed when first asked for.

    Nothing is written, neither a bank nor what methods keep in folders. Checks leave the state of
    the networks as it is; one that trains does so by `trial`, or on a copy.

    Args:
        recipe: The recipe.
        images: Its images, if they are read already.
        like: Another recipe of the same data and teacher, with which it shares both, and the time.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        short: Only the checks of the short form are made.
        seconds: Time for all checks; default: that of the form.
        name: Name of the arm, if the recipe is a further one of a comparison.
        out: Directory that the run or the comparison will write, for the space on its disk.
        plan: All runs of the command, if it makes several.
        loaded: Images and teachers of the recipe, if they are read and built already.

    Attributes:
        warnings: Sentences that the library said while it read the images and built the networks.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        images: Images | None = None,
        like: "Examined | None" = None,
        device: str | None = None,
        short: bool = False,
        seconds: float | None = None,
        name: str = "",
        out: Path = Path("runs"),
        plan: Plan | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        self.out: Path = like.out if like else out
        self.plan: Plan | None = like.plan if like else plan
        self.recipe, self.device, self.short, self.name = recipe, device, short, name
        self.warnings: list[str] = []
        self.began: float = like.began if like else time.monotonic()
        self.seconds = seconds or (SHORT_SECONDS if short else LONG_SECONDS)
        self._images, self._like, self._loaded = images, like, loaded
        self._alone: dict[str, Examined] = {}
        self._failures: dict[str, UnderstudyError] = {}
        self._outputs: dict[tuple[str, SplitName, int], Outputs] = {}
        self._samples: dict[tuple[SplitName, int], Loader] = {}
        self._batches: list[Batch] = []

    def seconds_left(self) -> float:
        """Return the seconds that are left for all checks; negative if none are."""
        return self.seconds - (time.monotonic() - self.began)

    @property
    def failures(self) -> tuple[UnderstudyError, ...]:
        """Errors because of which the images or the networks of the recipe cannot be had."""
        return tuple(self._failures.values())

    @property
    def task(self) -> Task:
        """The supervised task."""
        return tasks.find(self.recipe.task, self.recipe.training)

    @cached_property
    def images(self) -> Images:
        """Training, validation and test images."""
        if self._like:
            return self._like.images
        with self._needed("images", silent=False):
            return self._images or read_images(self.recipe, self.task)

    @cached_property
    def loaded(self) -> Loaded:
        """Images and teachers, for another recipe that has the same."""
        if self._loaded:
            return self._loaded
        if self._like:
            return self._like.loaded
        images = self.images
        with self._needed("networks"):
            return build.load(self.recipe, images)

    @cached_property
    def placed(self) -> Placed:
        """The experiment on its device: student, teacher, methods and loaders.

        Methods have not measured the teacher yet; see `prepared`.
        """
        loaded = self.loaded
        with self._needed("networks"):
            return self._place(loaded)

    def _place(self, loaded: Loaded) -> Placed:
        experiment = build.assemble(_unkept(self.recipe), loaded)
        distiller, training = experiment.distiller, experiment.recipe.training
        devices = accelerator(training, self.device, student=distiller.student)
        on_cpu = devices.device.type == "cpu"
        count = choose(None, distiller.student) if on_cpu else None
        settings = resolve(training, distiller, devices.device, threads=count)
        settings.apply(distiller)
        return Placed(experiment, devices, settings)

    def alone(self, teacher: str) -> "Examined":
        """Return the recipe with one of its teachers alone, on the same images.

        Args:
            teacher: Name of the teacher in the recipe.
        """
        if teacher not in self._alone:
            whole = self.loaded
            digest = {build.teacher_digest(""): whole.digests[build.teacher_digest(teacher)]}
            loaded = replace(
                whole, teachers={"": whole.teachers[teacher]}, digests=whole.digests | digest
            )
            one = Examined(
                self.recipe.alone(teacher),
                like=self,
                device=self.device,
                short=self.short,
                name=f"teacher {teacher}",
                loaded=loaded,
            )
            # What was said of the networks when they were built is for the checks of each to judge.
            one.seconds, one.warnings = self.seconds, self.warnings
            self._alone[teacher] = one
        return self._alone[teacher]

    def need(self) -> None:
        """Build what the recipe names.

        Raises:
            UnderstudyError: It cannot be built, which the run would refuse as well.
        """
        assert self.experiment

    @property
    def resolved(self) -> Recipe:
        """The recipe with all that is `auto` in it chosen, as its run will have it."""
        return defaults.adopted(self.recipe, self.experiment.recipe)

    @property
    def experiment(self) -> Experiment:
        """Everything the recipe names, built and on its device."""
        return self.placed.experiment

    @cached_property
    def prepared(self) -> Experiment:
        """The experiment, whose methods have measured the teacher on a sample of the images."""
        experiment = self.experiment
        if not experiment.distiller.distillations:
            return experiment
        loader = self.sample("train", _MEASURED_IMAGES)
        with self._needed("methods"):
            experiment.distiller.measure(
                lambda augmented: loader.single_pass(augmented=augmented),
                num_images=len(experiment.images.train),
            )
        return experiment

    @cached_property
    def training_batches(self) -> Loader:
        """Loader of the training images of the run.

        With a method that stores something for every image, of those on which it measured.
        """
        methods = self.experiment.distiller.trainable.methods.values()
        if not any(getattr(method, "requires_image_index", False) for method in methods):
            return self.experiment.train
        images = self.images.train
        return build.sampled(
            self.resolved, self.experiment, images, _MEASURED_IMAGES, training=True
        )

    def batches(self, count: int) -> list[Batch]:
        """Return the first augmented training batches of the run, on its device.

        With `training.accumulate`, the parts of a step are batches of their own.
        """
        if len(self._batches) < count:
            parts = (part for step in self.training_batches.epoch(0) for part in step)
            device, form = self.placed.accelerator.device, self.placed.settings.memory_format
            self._batches = [part.to(device, form) for part in islice(parts, count)]
        return self._batches[:count]

    def sample(self, split: SplitName, count: int) -> Loader:
        """Return a loader of clean views of images that are drawn evenly from a split.

        Raises:
            KeyError: The recipe has no validation images.
        """
        key = split, count
        if key not in self._samples:
            sources = {"train": self.images.train, "test": self.images.test}
            if self.images.validation is not None:
                sources["validation"] = self.images.validation
            self._samples[key] = build.sampled(
                self.experiment.recipe, self.experiment, sources[split], count
            )
        return self._samples[key]

    def teacher_outputs(self, split: SplitName, count: int) -> Outputs:
        """Return the only teacher's outputs on the images of `sample`, as the task collects them.

        For whole images: `logits`, `penultimate`, `labels` and `index`; `task.measure` takes them.

        Raises:
            NetworkError: An output is not finite.
        """
        teacher = self.experiment.distiller.teacher
        assert teacher is not None
        key = "teacher", split, count
        if key not in self._outputs:
            self._outputs[key] = collect(
                teacher.network,
                self.sample(split, count).single_pass(augmented=False),
                self.placed.accelerator,
                self.task,
                role="teacher",
                replay=teacher.outputs,
            )
        return self._outputs[key]

    def student_outputs(self, split: SplitName, count: int) -> Outputs:
        """Return the outputs of the student before training, as `teacher_outputs`.

        Raises:
            Diverged: An output is not finite.
        """
        key = "student", split, count
        if key not in self._outputs:
            self._outputs[key] = collect(
                self.experiment.distiller.student,
                self.sample(split, count).single_pass(augmented=False),
                self.placed.accelerator,
                self.task,
            )
        return self._outputs[key]

    @cached_property
    def trial(self) -> Trial:
        """Some optimizer steps of the run, made on a student of their own: losses and times."""
        bench = self._bench
        with self._needed("trial"):
            return bench.trial()

    @property
    def tried(self) -> bool:
        """True once some optimizer steps were made: `trial` costs nothing any more."""
        return "trial" in vars(self)

    def trial_at(self, lr: float) -> Trial:
        """Return the same steps from the same start at another learning rate, not timed."""
        return self._bench.at(lr)

    @cached_property
    def _bench(self) -> Bench:
        start = self.prepared.distiller.trainable.state_dict()
        with self._needed("trial"):
            placed = self._place(self.loaded)
            experiment = replace(placed.experiment, train=self.training_batches)
            experiment.distiller.trainable.load_state_dict(start)
            balanced(experiment.recipe, experiment, placed.settings)  # as before a run
            student, training = experiment.distiller.student, experiment.recipe.training
            devices = partial(accelerator, training, self.device, student=student)
            return Bench(experiment.recipe, experiment, start, devices, placed.settings)

    @contextmanager
    def _needed(self, name: str, *, silent: bool = True) -> Iterator[None]:
        """Keep warnings, and remember an error that prevents the checks that need a fact."""
        if name in self._failures:
            raise self._failures[name]
        try:
            with kept(self.warnings, silent=silent):
                yield
        except UnderstudyError as error:
            self._failures[name] = error
            raise


def _unkept(recipe: Recipe) -> Recipe:
    """Return a recipe whose methods keep nothing of the sample that they measure."""
    methods = {
        label: {key: value for key, value in method.items() if key != "keep"}
        for label, method in recipe.each_method.items()
    }
    return recipe.with_methods(methods)
