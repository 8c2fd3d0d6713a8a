"""Understudy: train a small vision network to perform like a big one by mimicking its features.

Every name below is imported when it is first used, so that `import understudy` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.config.recipe import Recipe as Recipe
    from understudy.distillation.distiller import Distiller as Distiller
    from understudy.distillation.shared_teacher import Shared as Shared
    from understudy.distillation.wire import wire as wire
    from understudy.errors import UnderstudyError as UnderstudyError
    from understudy.experiment.compare import compare as compare
    from understudy.experiment.comparison import Comparison as Comparison
    from understudy.experiment.demo import demo as demo
    from understudy.experiment.evaluate import evaluate as evaluate
    from understudy.experiment.run_directory import Run as Run
    from understudy.experiment.train import distill as distill
    from understudy.experiment.train import train as train
    from understudy.methods import Method as Method
    from understudy.models import Input as Input
    from understudy.models import Network as Network
    from understudy.reporting import report as report

__version__ = "0.1.0"

# No name here is that of a submodule: importing `understudy.x` sets the attribute `x` of this
# package to the module, so that a function `x` would be gone. A test keeps it so.
_HOMES = {
    "Comparison": "experiment.comparison",
    "Distiller": "distillation.distiller",
    "Input": "models",
    "Method": "methods",
    "Network": "models",
    "Recipe": "config.recipe",
    "Run": "experiment.run_directory",
    "Shared": "distillation.shared_teacher",
    "UnderstudyError": "errors",
    "compare": "experiment.compare",
    "demo": "experiment.demo",
    "distill": "experiment.train",
    "evaluate": "experiment.evaluate",
    "report": "reporting",
    "train": "experiment.train",
    "wire": "distillation.wire",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
