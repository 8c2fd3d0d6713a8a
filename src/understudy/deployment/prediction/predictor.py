"""Predict with a trained student: pictures of any form in, classes, label sets or boxes out."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import final

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from understudy.deployment.prediction.decisions import (
    Decision,
    Feature,
    MostProbable,
    Objects,
    Preprocess,
    Present,
    ReadPicture,
)
from understudy.deployment.prediction.pictures import Item, Picture, listed
from understudy.deployment.prediction.predictions import Boxes as Boxes
from understudy.deployment.prediction.predictions import Classes as Classes
from understudy.deployment.prediction.predictions import Failed as Failed
from understudy.deployment.prediction.predictions import LabelSet as LabelSet
from understudy.deployment.prediction.predictions import Prediction as Prediction
from understudy.deployment.prediction.predictions import Predictions as Predictions
from understudy.deployment.prediction.predictions import Vector as Vector
from understudy.deployment.saved_student import SavedStudent, open_student
from understudy.distillation.device_names import find_device
from understudy.errors import DataError, RecipeError, memory_ran_out
from understudy.training.batch_norm import enough_values

TOP = 5
"""Classes that are named for each picture, unless asked otherwise."""
PROBABILITY = 0.5
"""Probability from which a class of several counts as present, unless asked otherwise."""
SCORE = 0.3
"""Score from which an object is named, unless asked otherwise; as in the pictures of reports."""
_THREADS = 8
"""Most threads that decode pictures: Pillow lets go of the interpreter's lock."""


def load(path: str | Path, *, trust: bool = False, device: str | None = None) -> "Predictor":
    """Return a predictor of a trained student.

    Of a run directory it is the student of the last epoch, which `evaluation.json` is about; its
    folder `best` holds that of the epoch which the validation images chose.

    Args:
        path: Run directory, or its folder `best`; exported folder; or a file of weights with
            `config.json` beside it.
        trust: Execute the Python file that the student's network is built by, if it is.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.

    Returns:
        The predictor: `predict` takes pictures of any form.

    Raises:
        RunError: There is no student, or nothing says how it is built.
        NetworkError: The network cannot be built, the weights do not fit, or a Python file would be
            executed that is not trusted.
        RecipeError: There is no such device.

    Example:
        predictor = understudy.load("runs/mine/lshfm/seed0")
        for prediction in predictor.predict("my_images/test"):
            print(prediction.name, prediction)
    """
    find_device(device)
    student = open_student(path, trust=trust)
    config = student.config
    return Predictor(
        student.module,
        student.preprocess,
        task=config.task,
        classes=config.classes,
        source=_described(student),
        threshold=config.threshold,
        has_classifier=config.num_classes is not None,
        predicts=config.predicts,
        device=device,
    )


def _described(student: SavedStudent) -> str:
    """Return which student it is, and which one it is not."""
    folder = student.path.parent
    name = f"{student.config.network.name} in {student.path}"
    if folder.name == "best" and (folder.parent / "recipe.yaml").is_file():
        return f"{name}, of the best epoch"
    if (folder / "best" / student.path.name).is_file():
        return f"{name}, of the last epoch (that of the best one: {folder / 'best'})"
    return name


@final
@dataclass(frozen=True)
class Answer:
    """A prediction, and the picture it is of.

    Attributes:
        prediction: What the network predicts, or why it cannot.
        pixels: The picture, upright; None unless it is of a detector.
    """

    prediction: Prediction
    pixels: UInt8[Tensor, "3 height width"] | None = None


@final
class Predictor:
    """A network that predicts pictures of any form; `understudy.load` makes one of a student.

    Args:
        module: The plain network.
        preprocess: Prepares one picture for it.
        task: `classification`, `multilabel`, `detection` or `none`.
        classes: Names of its classes in the order of the logits; empty if unknown.
        source: Which student it is, in words.
        threshold: Probability or score from which a class or an object is named; None for the
            usual one.
        has_classifier: False if the network returns a vector instead of logits.
        predicts: False if it gives scores of classes that nothing trained: it names none.
        device: Device to compute on; default: a GPU, or else the CPU.

    Attributes:
        module: The plain network in evaluation mode, on its device.
        preprocess: Prepares one picture, uint8 `(3, height, width)` or PIL, for `module`.
        task: Name of its task.
        classes: Names of its classes in the order of the logits; empty if unknown.
        source: Which student it is, in words.
        device: Device that it computes on.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Preprocess,
        *,
        task: str,
        classes: Sequence[str] = (),
        source: str = "",
        threshold: float | None = None,
        has_classifier: bool = True,
        predicts: bool = True,
        device: str | None = None,
    ) -> None:
        self.device = find_device(device)
        self.module = module.to(self.device).eval()
        self.preprocess, self.task = preprocess, task
        self.classes, self.source = tuple(classes), source
        self._threshold, self._has_classifier = threshold, has_classifier
        self._predicts = predicts

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"<Predictor of {self.source or type(self.module).__name__}: {self.task}{classes}>"

    def predict(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        batch: int | None = None,
        top: int | None = None,
        threshold: float | None = None,
    ) -> Predictions:
        """Return a prediction for each picture, in their order.

        Args:
            pictures: Paths of files or folders, patterns, PIL images, numpy arrays and tensors in
                any mixture, or one of them: see `deployment.prediction.pictures`.
            batch: Pictures at once; default: 32, of a detector 4.
            top: Number of classes to name, where a picture has one; default: 5.
            threshold: Probability or score from which a class or an object is named; default: that
                of the student, or else 0.5 of several classes and 0.3 of objects.

        Raises:
            DataError: A picture cannot be read; `stream` goes on with the others.
            RecipeError: `top` or `threshold` has no meaning for the task, or nothing trained the
                classifier.
        """
        several = list(self.stream(pictures, batch=batch, top=top, threshold=threshold))
        failed = [each.error for each in several if isinstance(each, Failed)]
        if failed:
            count = len(failed) - 1
            more = f" Nor can {count} other{'s' * (count > 1)} be used." if count else ""
            raise DataError(f"{failed[0].rstrip('.')}.{more}")
        return Predictions(several)

    def stream(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        batch: int | None = None,
        top: int | None = None,
        threshold: float | None = None,
    ) -> Iterator[Prediction]:
        """Return an iterator over the predictions, with a `Failed` where a picture cannot be used.

        Two batches of pictures are in memory at most. The arguments are those of `predict`.

        Raises:
            RecipeError: As for `predict`.
        """
        answers = self.answers(listed(pictures), batch=batch, top=top, threshold=threshold)
        return (answer.prediction for answer in answers)

    def answers(
        self,
        items: Iterable[Item],
        *,
        batch: int | None = None,
        top: int | None = None,
        threshold: float | None = None,
    ) -> Iterator[Answer]:
        """Return the same for listed pictures; of a detector with the pictures themselves.

        Raises:
            RecipeError: As for `predict`.
        """
        decision = self.decision(top=top, threshold=threshold)
        if batch is not None and batch < 1:
            raise RecipeError(f"A batch cannot have {batch} pictures: give 1 or more.")
        return self._answers(iter(items), batch or decision.batch, decision)

    def decision(self, *, top: int | None = None, threshold: float | None = None) -> Decision:
        """Return how outputs become predictions.

        Raises:
            RecipeError: As for `predict`.
        """
        if not self._predicts:
            raise RecipeError(
                f"Nothing trained the classifier of {self.source}: its run had no labels, and no "
                "method that reads scores. So it can name no class: train it with labels by "
                "`understudy finetune`, or measure its features by `understudy probe`."
            )
        one_class = self._has_classifier and self.task in ("classification", "none")
        if top is not None and not (one_class and top >= 1):
            advice = "give 1 or more" if one_class else "leave it out"
            raise RecipeError(
                f"`top` is {top}, the number of classes to name where a picture has one, and the "
                f"task is {self.task}: {advice}."
            )
        chosen = self.task in ("multilabel", "detection")
        if threshold is not None and not (chosen and 0 <= threshold <= 1):
            advice = "give 0 to 1" if chosen else "leave it out, and choose by `top` how many"
            raise RecipeError(
                f"`threshold` is {threshold:g}, the probability or score from which one of several "
                f"classes or an object is named: {advice}."
            )
        if not self._has_classifier:
            return Feature()
        if one_class:
            return MostProbable(self.classes, top=top or TOP)
        kind, usual = (Objects, SCORE) if self.task == "detection" else (Present, PROBABILITY)
        levels = (threshold, self._threshold, usual)
        return kind(self.classes, threshold=next(x for x in levels if x is not None))

    def _answers(self, items: Iterator[Item], batch: int, decision: Decision) -> Iterator[Answer]:
        """Compute one batch while the next is decoded."""
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            waiting: deque[list[Future[ReadPicture | Failed]]] = deque()
            while chunk := list(islice(items, batch)):
                waiting.append([pool.submit(self._read, item, decision) for item in chunk])
                if len(waiting) > 1:
                    yield from self._computed(waiting.popleft(), decision)
            while waiting:
                yield from self._computed(waiting.popleft(), decision)

    def _read(self, item: Item, decision: Decision) -> ReadPicture | Failed:
        try:
            pixels, note = item.read()
            image = pixels if decision.whole else self.preprocess(pixels)
        except DataError as error:
            return Failed(item.name, str(error))
        except Exception as error:
            if not memory_ran_out(error):
                raise
            return Failed(item.name, f"{item.name} is too large for the memory of this machine.")
        return ReadPicture(item.name, note, image)

    def _computed(
        self, futures: Sequence["Future[ReadPicture | Failed]"], decision: Decision
    ) -> Iterator[Answer]:
        """Yield the answers to one batch, in its order."""
        batch = [future.result() for future in futures]
        pictures = [each for each in batch if isinstance(each, ReadPicture)]
        predictions = iter(self._decided(pictures, decision) if pictures else ())
        for each in batch:
            if isinstance(each, Failed):
                yield Answer(each)
            else:
                yield Answer(next(predictions), each.image if decision.whole else None)

    @torch.inference_mode()
    def _decided(self, pictures: Sequence[ReadPicture], decision: Decision) -> list[Prediction]:
        try:
            with enough_values(self.source or type(self.module).__name__):
                return decision.decide(self.module, pictures, self.preprocess)
        except Exception as error:
            # Whole pictures have any size, and one may be too narrow for a detector.
            if not memory_ran_out(error) and not (decision.whole and type(error) is RuntimeError):
                raise
            problem = self._cannot(pictures[0], error)
        if len(pictures) == 1:
            return [Failed(pictures[0].name, problem)]
        half = len(pictures) // 2
        return self._decided(pictures[:half], decision) + self._decided(pictures[half:], decision)

    def _cannot(self, picture: ReadPicture, error: Exception) -> str:
        """Say why a picture that was read has no prediction."""
        if memory_ran_out(error):
            return f"{picture.name} is too large for the memory of {self.device}."
        height, width = picture.image.shape[-2:]
        why = " ".join(str(error).split()).rstrip(".")
        return f"{picture.name}, {width} × {height} pixels, cannot be computed: {why}."
