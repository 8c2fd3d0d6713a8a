"""Train a small vision network to perform like a big one by mimicking its features.

| to | use |
|---|---|
| train a teacher, a control or a student | `train`, `distill` → `Run` |
| compare methods with a control over seeds | `compare`, `demo` → `Comparison` |
| compare several students, accuracy over latency | `compare_students` → `StudentComparison` |
| fine-tune distilled students with some labels | `finetune` → `FinetuneComparison` |
| reproduce a published table | `reproduce` → `Reproduction` |
| search method, weight and hyper-parameters | `tune` → `Tuning` |
| measure a trained student, write the page | `evaluate`, `report` |
| use a trained student | `load` → a predictor: classes, label sets or boxes of pictures |
| add losses to a training loop of your own | `wire` → `Distiller`; `Shared` for several students |
| export a trained student, verified and measured | `export` |
| examine a recipe before training | `doctor` → `Examination` |
| describe an experiment | `Recipe` |
| find methods, networks, data sources and tasks | `methods`, `models`, `data`, `tasks` |
| write a method | `Method`, `Batch`, `Mixed`, `Features`, `Shapes`, `batch_mean` |
| wrap a network | `Network`, `Input` |
| follow training | `Callback`, `progress=True`, the logger `understudy` |
| catch errors | `UnderstudyError` |

Messages go to the logger `understudy` of the standard library: INFO tells how a run computes,
WARNING that something did not go as planned. Without a handler only warnings appear, on the
standard error; `progress=True` and the command line print both.

Every name is imported when it is first used, so `import understudy` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy import data as data
    from understudy import methods as methods
    from understudy import models as models
    from understudy import tasks as tasks
    from understudy.batch import Batch as Batch
    from understudy.batch import Mixed as Mixed
    from understudy.checks.examine import Examination as Examination
    from understudy.checks.examine import doctor as doctor
    from understudy.comparison.compare import compare as compare
    from understudy.comparison.demo import demo as demo
    from understudy.comparison.finetune import FinetuneComparison as FinetuneComparison
    from understudy.comparison.finetune import finetune as finetune
    from understudy.comparison.result import Comparison as Comparison
    from understudy.comparison.students import StudentComparison as StudentComparison
    from understudy.comparison.students import compare_students as compare_students
    from understudy.config.recipe import Recipe as Recipe
    from understudy.deployment.export.export_student import export as export
    from understudy.deployment.prediction.predictor import load as load
    from understudy.distillation.distiller import Distiller as Distiller
    from understudy.distillation.shared_teacher import Shared as Shared
    from understudy.distillation.wire import wire as wire
    from understudy.errors import UnderstudyError as UnderstudyError
    from understudy.experiment.callback import Callback as Callback
    from understudy.experiment.evaluate import evaluate as evaluate
    from understudy.experiment.run_directory import Run as Run
    from understudy.experiment.train import distill as distill
    from understudy.experiment.train import train as train
    from understudy.features import Features as Features
    from understudy.features import Shapes as Shapes
    from understudy.functional import batch_mean as batch_mean
    from understudy.methods import Method as Method
    from understudy.models import Input as Input
    from understudy.models import Network as Network
    from understudy.reporting import report as report
    from understudy.reproduction.reproduce import reproduce as reproduce
    from understudy.reproduction.result import Reproduction as Reproduction
    from understudy.tuning.result import Tuning as Tuning
    from understudy.tuning.tune import tune as tune

__version__ = "0.1.0"

# No name of `_HOMES` is that of a submodule: importing `understudy.x` sets the attribute `x` of
# this package to the module, which would replace a function `x`. A test keeps it so.
_HOMES = {
    "Batch": "batch",
    "Callback": "experiment.callback",
    "Comparison": "comparison.result",
    "Distiller": "distillation.distiller",
    "Examination": "checks.examine",
    "Features": "features",
    "FinetuneComparison": "comparison.finetune",
    "Input": "models",
    "Method": "methods",
    "Mixed": "batch",
    "Network": "models",
    "Recipe": "config.recipe",
    "Reproduction": "reproduction.result",
    "Run": "experiment.run_directory",
    "Shapes": "features",
    "Shared": "distillation.shared_teacher",
    "StudentComparison": "comparison.students",
    "Tuning": "tuning.result",
    "UnderstudyError": "errors",
    "batch_mean": "functional",
    "compare": "comparison.compare",
    "compare_students": "comparison.students",
    "demo": "comparison.demo",
    "distill": "experiment.train",
    "doctor": "checks.examine",
    "evaluate": "experiment.evaluate",
    "export": "deployment.export.export_student",
    "finetune": "comparison.finetune",
    "load": "deployment.prediction.predictor",
    "report": "reporting",
    "reproduce": "reproduction.reproduce",
    "train": "experiment.train",
    "tune": "tuning.tune",
    "wire": "distillation.wire",
}
_PACKAGES = ("data", "methods", "models", "tasks")

__all__ = ["__version__", *_HOMES, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
