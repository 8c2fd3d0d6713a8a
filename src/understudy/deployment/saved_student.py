"""Open a trained student from a run directory, an exported folder or a file of weights."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from understudy import tasks
from understudy.comparison.result import FILE as COMPARISON
from understudy.config.recipe import Recipe
from understudy.config.trust import file_of, is_own
from understudy.deployment.exported_folder import WEIGHTS
from understudy.errors import NetworkError, RunError
from understudy.experiment import build, networks
from understudy.experiment.student_file.config import FILE, StudentConfig
from understudy.experiment.student_file.preprocess import Preprocess
from understudy.models.library_modules import as_library_modules


@dataclass(frozen=True)
class SavedStudent:
    """A trained student, ready for use.

    Attributes:
        path: File of its weights.
        module: The plain network in evaluation mode, on the CPU; it takes what `preprocess` gives.
        config: How it was built, prepared and measured.
        preprocess: The test transform of a whole picture.
    """

    path: Path
    module: nn.Module
    config: StudentConfig
    preprocess: Preprocess


def open_student(path: str | Path, *, trust: bool = False) -> SavedStudent:
    """Return the student in a run directory, an exported folder, or a file of weights.

    Args:
        path: The folder; or a file of weights, with `config.json` beside it.
        trust: Execute the Python file that `config.json` names for the network, if it does.

    Raises:
        RunError: There is no student, or nothing says how it is built.
        NetworkError: The network cannot be built, the weights do not fit, or `config.json` names a
            Python file and is not trusted.
    """
    file = _weights_file(Path(path))
    config = StudentConfig.read(file.parent)
    check_trust(config, file.parent, trust=trust)
    module = as_library_modules(_built(config, file), config.preprocessing.size)
    return SavedStudent(file, module.eval(), config, Preprocess(config.preprocessing))


def check_trust(config: StudentConfig, folder: Path, *, trust: bool) -> None:
    """Refuse to execute a Python file outside the working folder, or beside the student.

    Raises:
        NetworkError: `config.json` names such a file, and is not trusted.
    """
    file = file_of(config.network.name)
    if trust or file is None or is_own(file, received=folder):
        return
    raise NetworkError(
        f"The student in {folder} is built by the file {str(file)!r}, which {FILE} names and which "
        "would be executed, but lies outside the working folder or beside the student: if you know "
        "this file, allow it by `trust` (--trust)."
    )


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise RunError(
            f"There is no student at {path}: name a run directory, an exported folder, or a file "
            f"of weights with {FILE} beside it."
        )
    if (path / COMPARISON).is_file():
        raise RunError(
            f"{path} is a comparison of several students: name a run of it, such as "
            f"{path / 'ARM' / 'seed0'}."
        )
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    if seeds := sorted(path.glob("seed*/recipe.yaml")):
        raise RunError(f"{path} is an arm of a comparison: name a run of it, {seeds[0].parent}.")
    begun = (path / "recipe.yaml").is_file()
    remedy = "continue it with --resume" if begun else f"it has none of {', '.join(WEIGHTS)}"
    raise RunError(f"{path} holds no student{' yet' if begun else ''}: {remedy}.")


def _built(config: StudentConfig, file: Path) -> nn.Module:
    """Build the network and load its weights, as for a teacher: it takes the classes of these."""
    spec = replace(config.network, weights=str(file))
    recipe = Recipe(task=config.task, teacher=spec, methods={})
    size = config.preprocessing.size
    student = networks.teacher(recipe, (), tasks.find(config.task), view_size=size or build.LARGE)
    assert student is not None  # the recipe names one
    return student.plain()
