"""The public names: exactly these, documented, typed, lazy, and hidden by no module."""

import doctest
import inspect
import re
import resource
import subprocess
import sys
import textwrap
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import pytest

import understudy
from tests.support.processes import Fresh

ROOT = Path(__file__).parents[1]

FUNCTIONS = [
    *("compare", "compare_students", "demo", "distill", "doctor", "evaluate", "export"),
    *("finetune", "load", "report", "reproduce", "train", "tune", "wire"),
]
CLASSES = [
    *(
        "Callback",
        "Comparison",
        "Examination",
        "FinetuneComparison",
        "Recipe",
        "Reproduction",
        "Run",
        "StudentComparison",
        "Tuning",
    ),
    *("Distiller", "Input", "Network", "Shared"),
    *("Batch", "Method", "Mixed", "Shapes"),
    "UnderstudyError",
]
PACKAGES = ["data", "methods", "models", "tasks"]
NAMES = [*FUNCTIONS, *CLASSES, *PACKAGES, "Features", "batch_mean"]

EXAMPLES_OF = {
    "understudy.bank._division",
    "understudy.bank._store",
    "understudy.words",
    "understudy.checks.examine",
    "understudy.checks.finding",
    "understudy.cli.list_flags",
    "understudy.config.extras",
    "understudy.config.naming",
    "understudy.tuning.rungs",
    "understudy.deployment.hub.licences",
    "understudy.config.recipe",
    "understudy.distillation.wire",
    "understudy.reproduction.budget",
    "understudy.experiment.callback",
    "understudy.experiment.evidence",
    "understudy.reporting.measured_images",
    "understudy.experiment.run_time",
    "understudy.experiment.plain_table",
    "understudy.files",
    "understudy.functional",
}
"""Modules whose docstrings hold examples that run."""

TYPED = """
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

import understudy
from understudy import Batch, Features, Shapes, batch_mean


@final
class Squared(understudy.Method):
    published_weight: ClassVar[float] = 1.0

    def __init__(self, student: Shapes, teacher: Shapes, *, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor + student.vector("penultimate") - teacher.vector("penultimate")

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        mixed: understudy.Mixed | None = batch.mixed
        assert mixed is None
        return self.factor * batch_mean((student["logits"] - teacher["logits"]).square().mean(1))


class Losses(understudy.Callback):
    def epoch(self, record: Mapping[str, Any]) -> None:
        print(record["losses"])


def loop(student: nn.Module, teacher: nn.Module, images: Tensor) -> Tensor:
    network = understudy.Network(teacher, input=understudy.Input(size=32))
    distiller: understudy.Distiller = understudy.wire(student, network, {"kd": 1}, example=images)
    if distiller.teacher is not None:
        distiller.replay = understudy.Shared(distiller.teacher)
    return distiller.total(distiller(images, torch.zeros(len(images), dtype=torch.long)))


def main() -> None:
    recipe: understudy.Recipe = understudy.Recipe.load("fashion/demo", {"training.epochs": 1})
    names: list[str] = [
        *understudy.methods.names(), *understudy.models.names(),
        *understudy.data.names(), *understudy.tasks.names(),
    ]
    try:
        examination: understudy.Examination = understudy.doctor(recipe, short=True)
        print(examination.findings)
        run: understudy.Run = understudy.distill(recipe, out="runs/student", callback=Losses())
        network: nn.Module = run.student()
        top1: float = understudy.evaluate(run).metrics["top1"]
        page: Path = understudy.report(run)
        labels: list[dict[str, Any]] = understudy.load(run.path).predict(["a.png"]).to_dict()
        comparison: understudy.Comparison = understudy.compare(recipe, seeds=[0], resume=True)
        text: str = comparison.table()
        several: understudy.StudentComparison = understudy.compare_students(recipe, ["resnet8"])
        folders: dict[str, str] = several.folders
        tuned: understudy.FinetuneComparison = understudy.finetune("runs/a", labels=["1%", "all"])
        print(tuned.table())
        print(understudy.export(run, to="safetensors"), folders)
        table: understudy.Reproduction = understudy.reproduce("cifar100/kd", budget="10m")
        print(table.to_table())
        tuning: understudy.Tuning = understudy.tune(recipe, methods=["kd"], trials=3, budget="1h")
        print(tuning.headline(), tuning.flags)
        print(understudy.demo(progress=True).arms, names, network, top1, page, text, labels)
    except understudy.UnderstudyError as error:
        print(error)
"""
"""A user's script with every public name."""


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(understudy.__all__) == sorted([*NAMES, "__version__"])
    assert dir(understudy) == sorted(understudy.__all__)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, "batch_mean"])
def test_a_public_name_is_documented(name: str) -> None:
    value = getattr(understudy, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_returns_and_raises(name: str) -> None:
    function = getattr(understudy, name)
    text = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Raises:"):
        assert f"\n{section}\n" in text, section
    assert "\nExample:\n" in text or "\n>>> " in text
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    parameters = inspect.signature(function).parameters.values()
    assert re.findall(r"^    (\w+): ", arguments, re.MULTILINE) == [p.name for p in parameters]
    assert not [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


@pytest.mark.parametrize("name", sorted({*CLASSES, "batch_mean"} - {"UnderstudyError"}))
def test_the_public_methods_of_a_class_are_documented(name: str) -> None:
    members = vars(getattr(understudy, name)).items()
    public = [(key, x) for key, x in members if not key.startswith("_")]
    own = [key for key, x in public if inspect.isfunction(x) or isinstance(x, classmethod)]
    assert not [key for key in own if not inspect.getdoc(getattr(understudy, name).__dict__[key])]


def test_no_function_or_class_has_the_name_of_a_module() -> None:
    modules = {m.name for m in iter_modules(understudy.__path__)}
    assert set(understudy.__all__) & modules == set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_attributes(name: str) -> None:
    code = f"import understudy; print(len(understudy.{name}.names()))"
    output = Fresh("-c", code).finish()
    assert int(output) == len(getattr(understudy, name).names()) > 0


def test_types_and_names_agree() -> None:
    source = Path(understudy.__file__).read_text()
    for_types = re.findall(r"^    from \S+ import .*?(\w+)(?:  #.*)?$", source, flags=re.MULTILINE)
    assert sorted(for_types) == sorted(NAMES)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        understudy.distil  # noqa: B018


def test_the_command_line_of_the_design_is_public() -> None:
    design = (Path(__file__).parents[1] / "docs" / "design.md").read_text()
    called = set(re.findall(r"`understudy\.(\w+)\(", design))
    assert called
    assert called <= set(NAMES)


def test_importing_loads_no_torch() -> None:
    code = "import sys, understudy, understudy.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_is_quick_and_loads_no_torch() -> None:
    code = "import sys, understudy.cli as c; c.main(['--help']); print('torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, since others may use it at the same time.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stdout.splitlines()[-1] == "False"
    assert min(seconds) < 0.5


def test_examples_in_docstrings_give_what_they_show() -> None:
    source = Path(understudy.__file__).parent
    files = [path for path in source.rglob("*.py") if ">>> " in path.read_text()]
    parts = [path.relative_to(source.parent).with_suffix("").parts for path in files]
    assert {".".join(part) for part in parts} == EXAMPLES_OF
    for name in EXAMPLES_OF:
        module = import_module(name)
        result = doctest.testmod(module, extraglobs={"torch": import_module("torch")})
        assert result.attempted
        assert not result.failed


def examples() -> str:
    """The `Example:` of every public function, each in a function of its own."""
    blocks = [
        inspect.getdoc(getattr(understudy, name)).partition("\nExample:\n")[2] for name in FUNCTIONS
    ]
    return "".join(
        f"\n\ndef example_{i}() -> None:\n{textwrap.indent(textwrap.dedent(block), '    ')}\n"
        for i, block in enumerate(blocks)
        if block
    )


def mypy(folder: Path) -> str:
    """What mypy says of the scripts in a folder, as strictly as of the library.

    It keeps what it has read, torch above all, where `make check` has kept it a moment before.
    """
    command = [sys.executable, "-m", "mypy", *map(str, sorted(folder.glob("*.py")))]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"MYPYPATH": "src"},
    ).stdout


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed: pip install mypy")
def test_a_script_of_a_user_is_typed(tmp_path: Path) -> None:
    assert (Path(understudy.__file__).parent / "py.typed").is_file()
    assert not [name for name in FUNCTIONS + CLASSES if f"understudy.{name}" not in TYPED
                and not re.search(rf"^from understudy import .*\b{name}\b", TYPED, re.MULTILINE)
                and name != "train"]  # fmt: skip
    wrong = TYPED.replace("seeds=[0]", "seeds=0").replace("top1: float", "top1: str")
    (tmp_path / "right.py").write_text(TYPED + examples())
    (tmp_path / "wrong.py").write_text(wrong)
    *errors, summary = mypy(tmp_path).splitlines()
    assert [line for line in errors if "wrong.py:" not in line] == []
    assert 'Argument "seeds" to "compare" has incompatible type' in "\n".join(errors)
    assert "Incompatible types in assignment" in "\n".join(errors)
    assert summary.endswith("in 1 file (checked 2 source files)")
