"""Export a trained student to ONNX, `torch.export` or safetensors, and verify what was written."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy import files
from understudy.config.trust import file_of
from understudy.deployment import exported_folder
from understudy.deployment.export import checking, onnx_export
from understudy.deployment.export.checking import Int8
from understudy.deployment.export.graph import Detections, Graph, Preparation
from understudy.deployment.export.parity import Parity
from understudy.deployment.export.verified_files import (
    Options,
    Subject,
    write_int8,
    write_onnx,
    write_program,
)
from understudy.deployment.exported_folder import INT8, ONNX, PROGRAM, WEIGHTS
from understudy.deployment.hub.card import write_card
from understudy.deployment.saved_student import SavedStudent, open_student
from understudy.deployment.speed import networks_to_time
from understudy.deployment.speed.latency import Candidate, Speeds, measure
from understudy.errors import RecipeError, UnderstudyError, suggestion
from understudy.experiment.run_directory import Run

Form = Literal["onnx", "torch-export", "safetensors", "hub"]
"""What a student is exported to."""
FORMS: tuple[Form, ...] = ("onnx", "torch-export", "safetensors", "hub")
IMAGES = 2000
"""Test images on which an export is checked, if a run has more."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote and measured, as `export.json` holds it.

    Attributes:
        folder: The folder.
        files: Form, such as `onnx` or `int8` → name of its file.
        parity: Form → difference to the student in torch.
        pipeline: Difference of the graph that prepares images itself to images prepared as for
            the evaluation of the run; None where images are prepared outside.
        int8: Accuracy of the int8 file beside fp32; None without one.
        speeds: Size and latency of teacher, control and student.
        takes: What the graphs take, and what is left to do before them; empty without a graph.
        notes: What could not be checked or measured, and why.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Parity] = field(default_factory=dict)
    pipeline: Parity | None = None
    int8: Int8 | None = None
    speeds: Speeds | None = None
    takes: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `export.json`."""
        return {
            "format": 1,
            "files": self.files,
            "parity": {form: parity.to_dict() for form, parity in self.parity.items()},
            "pipeline": self.pipeline.to_dict() if self.pipeline else None,
            "int8": self.int8.to_dict() if self.int8 else None,
            "speeds": self.speeds.to_dict() if self.speeds else None,
            "takes": self.takes,
            "notes": self.notes,
        }

    def __fspath__(self) -> str:
        return str(self.folder)


def export(
    run: str | Path | Run,
    overrides: Mapping[str, Any] | None = None,
    *,
    to: str | Sequence[str] = "onnx",
    out: str | Path | None = None,
    preprocessing: Preparation = "outside",
    probabilities: bool = False,
    any_size: bool = False,
    opset: int | None = None,
    int8: bool = False,
    max_drop: float = 1.0,
    keep_fp32: Sequence[str] = (),
    images: int | None = IMAGES,
    trust: bool = False,
) -> Exported:
    """Export the student of a run, and verify each file on test images of the run.

    Args:
        run: Run, its directory, or a folder with `student.safetensors` and `config.json`. Without
            test images of a run, random ones are taken, and the result says so.
        overrides: Keys of the run's recipe to replace, such as `{"data.root": "elsewhere"}`.
        to: One or several of `onnx`, `torch-export`, `safetensors` (weights and `config.json`) and
            `hub` (the same under the names that timm and the hub expect).
        out: Folder to write; default: `export` in the run directory.
        preprocessing: `outside`: the graph takes images that are resized and normalised. `inside`:
            it takes uint8 pictures of any size. `inside-float`: the same with values in [0, 1].
        probabilities: Let the graph return probabilities: a softmax, or a sigmoid where an image
            may have several classes.
        any_size: Let height and width of prepared images be free, for a network that allows it.
        opset: Version of ONNX's operators; default: that of the exporter.
        int8: Write `student_int8.onnx` too, calibrated on training images of the run.
        max_drop: Largest loss in points of the headline metric that int8 may cost.
        keep_fp32: Layers to leave in fp32, such as `blocks.0.*`.
        images: Number of test images, evenly chosen; None for all.
        trust: Execute the Python file that the run names for its network, if it does.

    Returns:
        Files, differences, accuracy and latency; `export.json` holds them too.

    Raises:
        RunError: There is no student.
        NetworkError: An exporter fails, a file does not compute what the student computes, or int8
            loses more than `max_drop`.
        RecipeError: The options do not go together.
        UnderstudyError: A library of the extra `export` is not installed.

    Example:
        exported = understudy.export("runs/student", to="onnx", int8=True)
        print(exported.parity["onnx"].sentence)
    """
    forms = _forms(to)
    path = Path(run)
    saved = open_student(path, trust=trust)
    options = Options(preprocessing, probabilities, any_size, opset)
    _check_options(saved, options, forms, int8=int8)
    folder = Path(out) if out else _own_folder(path) / exported_folder.FOLDER
    _make(folder)
    checked = checking.images_of(path, saved, overrides, count=images)
    subject = Subject(saved, options, checked, folder)
    done = Exported(folder, notes=[checked.reason] if checked.reason else [])
    done = _with_graphs(done, subject, forms)
    if int8:
        training = checking.calibration(path, saved, overrides)
        judged = write_int8(subject, training, max_drop=max_drop, keep=keep_fp32)
        done = replace(done, files={**done.files, "int8": INT8}, int8=judged)
    done = _with_weights(done, saved, forms)
    done = replace(done, speeds=_speeds(done, path, subject, trust=trust))
    _record(done)
    earlier = [
        name for name in exported_folder.earlier_files(folder) if folder / name != saved.path
    ]
    if earlier:
        done = replace(done, notes=[*done.notes, _of_earlier(earlier)])
        _record(done)
    write_card(folder, saved.config)
    return done


def _record(done: Exported) -> None:
    """Write `export.json`."""
    content = files.as_json(done.to_dict(), indent=1)
    files.write(done.folder / exported_folder.FILE, content, again="export again")


def _of_earlier(names: Sequence[str]) -> str:
    """Say which files in the folder an earlier export wrote."""
    return (
        f"{', '.join(names)}: of an earlier export, perhaps of another student or with other "
        "options, and left out of README.md, export.json and `push`"
    )


def _forms(to: str | Sequence[str]) -> list[str]:
    names = [to] if isinstance(to, str) else list(to)
    for name in names:
        if name not in FORMS:
            raise RecipeError(
                f"A student cannot be exported to {name!r}{suggestion(name, FORMS)}. "
                f"There are: {', '.join(FORMS)}."
            )
    return list(dict.fromkeys(names))


def _own_folder(path: Path) -> Path:
    """Return the folder of a student that may be named by its file."""
    return path if path.is_dir() else path.parent


def _check_options(
    saved: SavedStudent, options: Options, forms: Sequence[str], *, int8: bool
) -> None:
    """Refuse options that do not go together.

    Raises:
        RecipeError: They do not.
    """
    detector = saved.config.is_detector
    if int8 and "onnx" not in forms:
        raise RecipeError("int8 is a form of the ONNX file: add onnx to --to.")
    if int8 and detector:
        raise RecipeError(
            "int8 is made of networks of whole images alone: quantise the ONNX file of a detector "
            "with the tools of the runtime that it is for."
        )
    if detector and "torch-export" in forms:
        raise RecipeError(
            "torch.export cannot follow a detector, whose number of boxes depends on the picture: "
            "leave torch-export out of --to, and use onnx, which torch's classic exporter writes."
        )
    if detector and (options.preprocessing != "outside" or options.probabilities):
        raise RecipeError(
            "A detector resizes and normalises images itself and returns probabilities: leave "
            "--preprocessing and --probabilities out."
        )
    if options.preprocessing != "outside" and options.any_size:
        raise RecipeError(
            "With --preprocessing inside, pictures of any size are resized to that of the network: "
            "leave --any-size out."
        )
    if options.probabilities and checking.decision_of(saved) == "vector":
        raise RecipeError("The student returns vectors, of which there are no probabilities.")


def _make(folder: Path) -> None:
    """Make the folder to export to, without what an export left there that was killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(error, folder, 0, again="export again") from error
    files.sweep(folder)
    # An export that is killed leaves no figures of an earlier one beside files of its own.
    (folder / exported_folder.FILE).unlink(missing_ok=True)


_WRITERS = {"onnx": (ONNX, write_onnx), "torch-export": (PROGRAM, write_program)}


def _with_graphs(done: Exported, subject: Subject, forms: Sequence[str]) -> Exported:
    """Write and verify the ONNX file and the program of `torch.export`."""
    for form in forms:
        if form not in _WRITERS:
            continue
        name, write = _WRITERS[form]
        run, parity = write(subject)
        done = replace(done, files={**done.files, form: name}, parity={**done.parity, form: parity})
        done = replace(done, takes=subject.takes)
        if subject.is_detector and not parity.decisions:
            note = f"{name}: nothing was detected in the images, so that no box was compared"
            done = replace(done, notes=[*done.notes, note])
        if subject.takes_pictures and done.pipeline is None:
            done = replace(done, pipeline=subject.pipeline(run))
    return done


def _with_weights(done: Exported, saved: SavedStudent, forms: Sequence[str]) -> Exported:
    """Write weights, a network's own file, and `config.json`, which every exported folder holds."""
    names = dict(zip(("safetensors", "hub"), WEIGHTS, strict=True))
    for form in ("safetensors", "hub"):
        if form in forms:
            content = saved.path.read_bytes()
            files.write(done.folder / names[form], content, again="export again")
            done = replace(done, files={**done.files, form: names[form]})
    factory = file_of(saved.config.network.name)
    if factory is not None and names.keys() & set(forms):
        files.write(done.folder / factory.name, factory.read_bytes(), again="export again")
        done = replace(done, files={**done.files, "network": factory.name})
    saved.config.write(done.folder)
    return done


def _speeds(done: Exported, path: Path, subject: Subject, *, trust: bool) -> Speeds:
    """Measure the student and its files, and its teacher and its control by files of their own."""
    run = Run(path) if (path / "recipe.yaml").is_file() else None
    others, notes = networks_to_time.beside(run, trust=trust) if run else ([], [])
    with tempfile.TemporaryDirectory(prefix="understudy") as folder:
        if "onnx" in done.files:
            others = [_with_file(x, Path(folder) / f"{x.name}.onnx", notes) for x in others]
        own = networks_to_time.candidate_of("student", subject.saved, _files(done))
        if subject.takes_pictures:
            own = replace(own, file_image=subject.picture)
        speeds = measure([*others, own])
    return replace(speeds, notes=[*speeds.notes, *notes])


def _files(done: Exported) -> dict[str, Path]:
    """Return precision → file."""
    names = {"fp32": done.files.get("onnx"), "int8": done.files.get("int8")}
    return {x: done.folder / name for x, name in names.items() if name}


def _with_file(candidate: Candidate, path: Path, notes: list[str]) -> Candidate:
    """Return a network with an ONNX file of it; without one, and a note, where that fails."""
    try:
        if candidate.detector:
            detector = Detections(candidate.module, traced=True).eval()
            onnx_export.write_detector(detector, candidate.image, path)
        else:
            example = candidate.image.expand(2, -1, -1, -1).contiguous()
            onnx_export.write_for_timing(Graph(candidate.module).eval(), example, path)
    except UnderstudyError as error:
        notes.append(f"no ONNX file of the {candidate.name} to measure: {error}")
        return candidate
    return replace(candidate, files={"fp32": path})
