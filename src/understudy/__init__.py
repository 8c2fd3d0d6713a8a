"""Understudy: train a small vision network to perform like a big one by mimicking its features.

Every name below is imported when it is first used, so that `import understudy` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.comparison import Comparison as Comparison
    from understudy.comparison import compare as compare
    from understudy.demonstration import demo as demo
    from understudy.distiller import Distiller as Distiller
    from understudy.errors import UnderstudyError as UnderstudyError
    from understudy.methods import Method as Method
    from understudy.models import Input as Input
    from understudy.models import Network as Network
    from understudy.recipe import Recipe as Recipe
    from understudy.recipe import load as load_recipe  # noqa: F401 - exported by _HOMES
    from understudy.reporting import report as report
    from understudy.run import Run as Run
    from understudy.run import distill as distill
    from understudy.run import evaluate as evaluate
    from understudy.run import train as train
    from understudy.sharing import Shared as Shared
    from understudy.wiring import wire as wire

__version__ = "0.1.0"

# No name here is that of a submodule: importing `understudy.x` sets the attribute `x` of this
# package to the module, so that a function `x` would be gone. A test keeps it so.
_HOMES = {
    "Comparison": "comparison.Comparison",
    "Distiller": "distiller.Distiller",
    "Input": "models.Input",
    "Method": "methods.Method",
    "Network": "models.Network",
    "Recipe": "recipe.Recipe",
    "Run": "run.Run",
    "Shared": "sharing.Shared",
    "UnderstudyError": "errors.UnderstudyError",
    "compare": "comparison.compare",
    "demo": "demonstration.demo",
    "distill": "run.distill",
    "evaluate": "run.evaluate",
    "load_recipe": "recipe.load",
    "report": "reporting.report",
    "train": "run.train",
    "wire": "wiring.wire",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(".")
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
