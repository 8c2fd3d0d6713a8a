"""What letKD measures of its teacher: a codebook of words, and sub-classes with their decisions.

One pass of the teacher stores its maps; all stages read them from there. Every finished stage, and
every iteration of the long one, is on disk before the next begins.
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
from understudy.methods._letkd.feature_file import Rows
from understudy.methods._letkd.kmeans import Step, clusters
from understudy.methods._letkd.stage_store import Ledger
from understudy.methods._letkd.subclasses import Scatter, centers_of, decisions, prototypes_of

log = logging.getLogger("understudy.letkd")

_IMAGES = 256
"""Images whose rows are read at once."""
_SEED = 0


@dataclass(frozen=True)
class Words:
    """A codebook: `count` centres of all rows of one map."""

    count: int
    iterations: int
    map: tuple[int, ...]
    name: str = field(default="penultimate", init=False)


@dataclass(frozen=True)
class Subclasses:
    """`count` sub-classes of each class, told apart along `dims` discriminant axes."""

    count: int
    dims: int
    classes: int
    iterations: int
    map: tuple[int, ...]
    name: str = field(default="intermediate", init=False)


Plan = Words | Subclasses


def measure(
    teacher: TeacherOutputs,
    folder: Path,
    plans: Mapping[str, Plan],
    maps: Callable[[Features], Features],
    known: Callable[[Features, Batch], Tensor],
    device: torch.device,
) -> dict[str, Tensor]:
    """All tensors of the plans, measured or taken over from the folder.

    Args:
        teacher: Shows the clean training images.
        folder: Keeps finished stages; what it holds of another teacher is refused.
        plans: What to measure, by the place it is for.
        maps: Of each place, from a teacher's features.
        known: Class of each image, -1 where it is not known.
        device: Where to compute.

    Raises:
        BankError: The folder holds measurements of something else, or cannot be written.
        ShapeError: No image has a class, where classes are needed.
    """
    with _kept(folder):
        folder.mkdir(parents=True, exist_ok=True)
        features, _ = next(iter(teacher.batches(augmented=False)))
        first = maps(features)
        stages = {
            name: _Stages(
                plan,
                _ledger(folder, plan, teacher.num_images, first[name]),
                Rows(folder / f"{name}.fp16", plan.map[1] * plan.map[2], plan.map[0]),
                device,
            )
            for name, plan in plans.items()
        }
        missing = {name: stage for name, stage in stages.items() if not stage.finished}
        _store(teacher, {n: s for n, s in missing.items() if not s.stored}, maps, known)
        for stage in missing.values():
            stage.finish()
        return {k: x for stage in stages.values() for k, x in stage.ledger.tensors.items()}


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say in a sentence if the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise BankError(
            f"{folder} cannot keep what letkd measures of the teacher ({error.strerror}); finished "
            "stages are kept: make room, or name another folder by `keep`."
        ) from error


def _ledger(folder: Path, plan: Plan, images: int, first: Tensor) -> Ledger:
    made_of = asdict(plan) | {"map": list(plan.map), "images": images}
    probe = first[:8].mean((2, 3)).float().cpu()
    return Ledger(folder / f"{plan.name}.safetensors", made_of, probe)


def _store(
    teacher: TeacherOutputs,
    stages: Mapping[str, "_Stages"],
    maps: Callable[[Features], Features],
    known: Callable[[Features, Batch], Tensor],
) -> None:
    """One pass of the teacher, if anything is missing."""
    if not stages:
        return
    labels: list[Tensor] = []
    with ExitStack() as files:
        opened = {n: files.enter_context(s.rows.path.open("wb")) for n, s in stages.items()}
        for features, batch in teacher.batches(augmented=False):
            found = maps(features)
            for name, file in opened.items():
                stages[name].rows.append(file, found[name])
            labels.append(known(features, batch).cpu())
    for stage in stages.values():
        stage.ledger.put(labels=torch.cat(labels))
    log.info("letkd: stored the teacher's maps of %d images", teacher.num_images)


@dataclass(frozen=True)
class _Stages:
    """The stages of one place, each done only if the ledger lacks it."""

    plan: Plan
    ledger: Ledger
    rows: Rows
    device: torch.device

    @property
    def finished(self) -> bool:
        """Whether the last stage is done."""
        return {"word_counts", "decisions"} & self.ledger.tensors.keys() != set()

    @property
    def stored(self) -> bool:
        """Whether the rows of all images are on disk."""
        return "labels" in self.ledger.tensors and self.rows.path.is_file()

    def finish(self) -> None:
        """Do what is missing."""
        if isinstance(self.plan, Words):
            self._codebook(self.plan)
        else:
            _check_known(self.ledger.tensors["labels"])
            for name, stage in (
                ("axes", self._axes),
                ("prototypes", self._prototypes),
                ("decisions", self._decisions),
            ):
                if name not in self.ledger.tensors:
                    stage(self.plan)
        self.rows.path.unlink()

    def _codebook(self, plan: Words) -> None:
        done = self.ledger.tensors
        order = torch.randperm(len(done["labels"]), generator=_generator())
        # At first eight rows or more for each word, however few images that share would be.
        least = -(-8 * plan.count // self.rows.locations)

        def chosen(share: float) -> Int[Tensor, " images"]:
            return order[: max(least, int(share * len(order)))].sort().values

        def note(iteration: int, last: Step) -> None:
            self.ledger.put(words=last.centers, word_iterations=torch.tensor(iteration))
            log.info(
                "letkd: codebook, iteration %d of %d, mean squared distance %.4g",
                *(iteration, plan.iterations, last.error),
            )

        begun = int(done.get("word_iterations", torch.tensor(0)))
        first = done["words"] if begun else self._some(chosen(0), plan.count)
        # The last one is done again, if need be, for its counts.
        begun = min(begun, plan.iterations - 1)
        last = clusters(
            lambda share: self._read(chosen(share)),
            *(first.to(self.device), plan.iterations, begun, note),
        )
        words, counts = _padded(last.centers, plan.count), _padded(last.counts, plan.count)
        self.ledger.put(words=words, word_counts=counts, word_error=torch.tensor(last.error))

    def _axes(self, plan: Subclasses) -> None:
        scatter = Scatter(plan.classes, self.rows.dim, self.device)
        for label in range(plan.classes):
            for part in self._read(self._images(label)):
                scatter.add(part, label)
        axes, mean = scatter.axes(plan.dims)
        self.ledger.put(axes=axes.float(), axes_mean=mean.float())
        log.info("letkd: %d discriminant axes", plan.dims)

    def _prototypes(self, plan: Subclasses) -> None:
        found = []
        for label in range(plan.classes):
            z = self._projected(label)
            centers = centers_of(z, plan.count, plan.iterations)
            found.append((centers, prototypes_of(z, centers)))
        centers, prototypes = (torch.cat(x) for x in zip(*found, strict=True))
        self.ledger.put(centers=centers, prototypes=prototypes)
        log.info("letkd: %d sub-classes of each of %d classes", plan.count, plan.classes)

    def _decisions(self, plan: Subclasses) -> None:
        centers, prototypes = (
            self.ledger.tensors[name].to(self.device).view(plan.classes, plan.count, -1)
            for name in ("centers", "prototypes")
        )
        shares = decisions(self._projected, centers, prototypes)
        self.ledger.put(decisions=shares.float())
        own = 100 * float(shares.diagonal().mean())
        log.info("letkd: %.0f %% of the locations lie nearest to their own sub-class", own)

    def _some(self, images: Int[Tensor, " images"], count: int) -> Float[Tensor, "count dim"]:
        """Random rows of these images, from as many of them as possible."""
        each, picked = -(-count // len(images)), []
        for part in images.split(_IMAGES):  # type: ignore[no-untyped-call]
            rows = self.rows.read(part).view(len(part), self.rows.locations, -1)
            where = torch.rand(rows.shape[:2], generator=_generator()).argsort(1)[:, :each]
            picked.append(rows.take_along_dim(where.unsqueeze(2), 1).flatten(0, 1))
        found = torch.cat(picked)
        return found[torch.randperm(len(found), generator=_generator())[:count]]

    def _images(self, label: int) -> Int[Tensor, " images"]:
        return (self.ledger.tensors["labels"] == label).nonzero().squeeze(1)

    def _read(self, images: Int[Tensor, " images"]) -> Iterator[Float[Tensor, "rows dim"]]:
        for part in images.split(_IMAGES):  # type: ignore[no-untyped-call]
            yield self.rows.read(part).to(self.device)

    def _projected(self, label: int) -> Float[Tensor, "rows dims"]:
        """Rows of one class along the discriminant axes."""
        axes, mean = (self.ledger.tensors[k].to(self.device) for k in ("axes", "axes_mean"))
        parts = [(part - mean) @ axes for part in self._read(self._images(label))]
        return torch.cat(parts) if parts else mean.new_zeros(0, axes.shape[1])


def _check_known(labels: Int[Tensor, " images"]) -> None:
    if not (labels >= 0).any():
        raise ShapeError(
            "letkd asks for the class of the training images at its intermediate place, but none "
            "has a label or a teacher that tells; set places to penultimate."
        )


def _padded(x: Tensor, count: int) -> Tensor:
    """With rows of zeros where there are fewer rows than asked for."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])


def _generator() -> torch.Generator:
    # The results are the teacher's and the data's, whatever the seed of the run.
    return torch.Generator().manual_seed(_SEED)
