"""Measurement of letKD's teacher: a codebook of words, and sub-classes with a decision matrix.

One pass of the teacher writes its maps to a file, which all stages read. Every finished stage, and
every iteration of the codebook, is written to disk before the next one begins.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import Batch
from understudy.errors import BankError, ShapeError
from understudy.features import Features, TeacherOutputs
from understudy.methods._letkd.feature_file import FeatureFile
from understudy.methods._letkd.kmeans import Step, kmeans
from understudy.methods._letkd.stage_store import StageStore
from understudy.methods._letkd.subclasses import Scatter, centers_of, decisions, prototypes_of

log = logging.getLogger("understudy.letkd")

_IMAGES = 256
"""Number of images whose rows are read at once."""
_SEED = 0


@dataclass(frozen=True)
class CodebookPlan:
    """Settings of a codebook: `count` k-means centres of all rows of one map."""

    count: int
    iterations: int
    map: tuple[int, ...]
    name: str = field(default="penultimate", init=False)


@dataclass(frozen=True)
class SubclassPlan:
    """Settings of sub-classes: `count` of each class, along `dims` discriminant axes."""

    count: int
    dims: int
    classes: int
    iterations: int
    map: tuple[int, ...]
    name: str = field(default="intermediate", init=False)


Plan = CodebookPlan | SubclassPlan


def measure(
    teacher: TeacherOutputs,
    folder: Path,
    plans: Mapping[str, Plan],
    maps: Callable[[Features], Features],
    classes: Callable[[Features, Batch], Tensor],
    device: torch.device,
) -> dict[str, Tensor]:
    """Return all tensors of the plans, computed or loaded from the folder.

    Args:
        teacher: Delivers the clean training images.
        folder: Holds the finished stages.
        plans: Place → what to measure for it.
        maps: The teacher's features → the map at each place.
        classes: Features, batch → class of each image, -1 where it is not known.
        device: Where to compute.

    Raises:
        BankError: The folder holds other measurements, or cannot be written.
        ShapeError: Sub-classes are asked for, but no image has a known class.
    """
    with _write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        features, _ = next(iter(teacher.batches(augmented=False)))
        first = maps(features)
        stages = {
            name: _Stages(
                plan,
                _open_store(folder, plan, teacher.num_images, first[name]),
                FeatureFile(folder / f"{name}.fp16", plan.map[1] * plan.map[2], plan.map[0]),
                device,
            )
            for name, plan in plans.items()
        }
        missing = {name: stage for name, stage in stages.items() if not stage.finished}
        _write_maps(teacher, {n: s for n, s in missing.items() if not s.stored}, maps, classes)
        for stage in missing.values():
            stage.finish()
        return {k: x for stage in stages.values() for k, x in stage.store.tensors.items()}


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Turn an operating system error into a BankError."""
    try:
        yield
    except OSError as error:
        raise BankError(
            f"{folder} cannot store what letkd measures of the teacher ({error.strerror}); "
            "finished stages are kept: free disk space, or name another folder by `keep`."
        ) from error


def _open_store(folder: Path, plan: Plan, images: int, first: Tensor) -> StageStore:
    made_of = asdict(plan) | {"map": list(plan.map), "images": images}
    probe = first[:8].mean((2, 3)).float().cpu()
    return StageStore(folder / f"{plan.name}.safetensors", made_of, probe)


def _write_maps(
    teacher: TeacherOutputs,
    stages: Mapping[str, "_Stages"],
    maps: Callable[[Features], Features],
    classes: Callable[[Features, Batch], Tensor],
) -> None:
    """Write the maps and labels of all images, in one pass of the teacher, if any are missing."""
    if not stages:
        return
    labels: list[Tensor] = []
    with ExitStack() as files:
        opened = {n: files.enter_context(s.rows.path.open("wb")) for n, s in stages.items()}
        for features, batch in teacher.batches(augmented=False):
            by_place = maps(features)
            for name, file in opened.items():
                stages[name].rows.append(file, by_place[name])
            labels.append(classes(features, batch).cpu())
    for stage in stages.values():
        # Written last: labels in the store mean that the file of maps is complete.
        stage.store.put(labels=torch.cat(labels))
    log.info("letkd: stored the teacher's maps of %d images", teacher.num_images)


@dataclass(frozen=True)
class _Stages:
    """The stages of one place; a stage runs only if its tensors are not in the store."""

    plan: Plan
    store: StageStore
    rows: FeatureFile
    device: torch.device

    @property
    def finished(self) -> bool:
        """True if the last stage is done."""
        return {"word_counts", "decisions"} & self.store.tensors.keys() != set()

    @property
    def stored(self) -> bool:
        """True if the rows of all images are on disk."""
        return "labels" in self.store.tensors and self.rows.path.is_file()

    def finish(self) -> None:
        """Run the missing stages, and remove the file of maps."""
        if isinstance(self.plan, CodebookPlan):
            self._codebook(self.plan)
        else:
            _check_known(self.store.tensors["labels"])
            for name, stage in (
                ("axes", self._axes),
                ("prototypes", self._prototypes),
                ("decisions", self._decisions),
            ):
                if name not in self.store.tensors:
                    stage(self.plan)
        self.rows.path.unlink()

    def _codebook(self, plan: CodebookPlan) -> None:
        done = self.store.tensors
        # One order for all iterations: each sample contains the smaller ones before it.
        order = torch.randperm(len(done["labels"]), generator=_generator())
        # At least eight rows per word, even if the share is of fewer images.
        least = -(-8 * plan.count // self.rows.locations)

        def sample(share: float) -> Int[Tensor, " images"]:
            return order[: max(least, int(share * len(order)))].sort().values

        def save(iteration: int, last: Step) -> None:
            self.store.put(words=last.centers, word_iterations=torch.tensor(iteration))
            log.info(
                "letkd: codebook, iteration %d of %d, mean squared distance %.4g",
                *(iteration, plan.iterations, last.error),
            )

        finished = int(done.get("word_iterations", torch.tensor(0)))
        first = done["words"] if finished else self._random_rows(sample(0), plan.count)
        # If all iterations are done but not the stage, the last is repeated for its counts.
        finished = min(finished, plan.iterations - 1)
        last = kmeans(
            lambda share: self._read(sample(share)),
            *(first.to(self.device), plan.iterations, finished, save),
        )
        words, counts = _padded(last.centers, plan.count), _padded(last.counts, plan.count)
        self.store.put(words=words, word_counts=counts, word_error=torch.tensor(last.error))

    def _axes(self, plan: SubclassPlan) -> None:
        scatter = Scatter(plan.classes, self.rows.dim, self.device)
        for label in range(plan.classes):
            for rows in self._read(self._images(label)):
                scatter.add(rows, label)
        axes, mean = scatter.axes(plan.dims)
        self.store.put(axes=axes.float(), axes_mean=mean.float())
        log.info("letkd: %d discriminant axes", plan.dims)

    def _prototypes(self, plan: SubclassPlan) -> None:
        by_class = []
        for label in range(plan.classes):
            z = self._projected(label)
            centers = centers_of(z, plan.count, plan.iterations)
            by_class.append((centers, prototypes_of(z, centers)))
        centers, prototypes = (torch.cat(x) for x in zip(*by_class, strict=True))
        self.store.put(centers=centers, prototypes=prototypes)
        log.info("letkd: %d sub-classes of each of %d classes", plan.count, plan.classes)

    def _decisions(self, plan: SubclassPlan) -> None:
        centers, prototypes = (
            self.store.tensors[name].to(self.device).view(plan.classes, plan.count, -1)
            for name in ("centers", "prototypes")
        )
        shares = decisions(self._projected, centers, prototypes)
        self.store.put(decisions=shares.float())
        own = 100 * float(shares.diagonal().mean())
        log.info("letkd: %.0f %% of the locations lie nearest to their own sub-class", own)

    def _random_rows(
        self, images: Int[Tensor, " images"], count: int
    ) -> Float[Tensor, "count dim"]:
        """Draw random rows, spread over as many of these images as possible."""
        per_image, drawn = -(-count // len(images)), []
        for chunk in images.split(_IMAGES):  # type: ignore[no-untyped-call]
            rows = self.rows.read(chunk).view(len(chunk), self.rows.locations, -1)
            picked = torch.rand(rows.shape[:2], generator=_generator()).argsort(1)[:, :per_image]
            drawn.append(rows.take_along_dim(picked.unsqueeze(2), 1).flatten(0, 1))
        result = torch.cat(drawn)
        return result[torch.randperm(len(result), generator=_generator())[:count]]

    def _images(self, label: int) -> Int[Tensor, " images"]:
        return (self.store.tensors["labels"] == label).nonzero().squeeze(1)

    def _read(self, images: Int[Tensor, " images"]) -> Iterator[Float[Tensor, "rows dim"]]:
        for chunk in images.split(_IMAGES):  # type: ignore[no-untyped-call]
            yield self.rows.read(chunk).to(self.device)

    def _projected(self, label: int) -> Float[Tensor, "rows dims"]:
        """Project the rows of one class onto the discriminant axes."""
        axes, mean = (self.store.tensors[k].to(self.device) for k in ("axes", "axes_mean"))
        chunks = [(rows - mean) @ axes for rows in self._read(self._images(label))]
        return torch.cat(chunks) if chunks else mean.new_zeros(0, axes.shape[1])


def _check_known(labels: Int[Tensor, " images"]) -> None:
    if not (labels >= 0).any():
        raise ShapeError(
            "letkd needs classes of the training images at its intermediate place, but no image "
            "has a label, nor the teacher logits to predict it; set places to penultimate."
        )


def _padded(x: Tensor, count: int) -> Tensor:
    """Append rows of zeros up to `count` rows."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])


def _generator() -> torch.Generator:
    # Fixed, so that the results depend on teacher and data only, and can be shared by all seeds.
    return torch.Generator().manual_seed(_SEED)
