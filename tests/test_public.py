"""The public names: all there, all documented, none hidden by a module, none in a hurry."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules

import pytest

import understudy

NAMES = [name for name in understudy.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name: str) -> None:
    found = getattr(understudy, name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert inspect.getdoc(found)


def test_no_public_name_is_that_of_a_module() -> None:
    assert not set(understudy.__all__) & {m.name for m in iter_modules(understudy.__path__)}


def test_types_and_names_agree() -> None:
    source = Path(understudy.__file__).read_text()
    for_types = re.findall(r"^    from \S+ import .*?(\w+)(?:  #.*)?$", source, flags=re.MULTILINE)
    assert sorted(for_types) == sorted(NAMES)


def test_dir_shows_them() -> None:
    assert set(understudy.__all__) <= set(dir(understudy))


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        understudy.distil  # noqa: B018


def test_the_command_line_of_the_design_is_public() -> None:
    design = (Path(__file__).parents[1] / "docs" / "design.md").read_text()
    called = set(re.findall(r"`understudy\.(\w+)\(", design))
    assert called
    assert called <= set(NAMES)


def loaded(code: str) -> set[str]:
    """Top-level modules that a new process has loaded once it has run the code."""
    code += "\nprint()\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_loads_no_torch() -> None:
    assert "torch" not in loaded("import understudy, understudy.cli")


def test_help_loads_only_what_reads_flags() -> None:
    # Each of these costs from a tenth of a second to several.
    heavy = {"torch", "torchvision", "timm", "numpy", "scipy", "matplotlib", "PIL", "accelerate"}
    seen = loaded("import understudy.cli\nunderstudy.cli.main(['--help'])")
    assert "jsonargparse" in seen
    assert not seen & heavy


def test_training_loads_no_optional_library() -> None:
    seen = loaded("import understudy.experiment.train")
    assert "torch" in seen
    # Trackers, what measures boxes, what reads other sources, and what only pages need.
    assert not seen & {"tensorboard", "wandb", "mlflow", "faster_coco_eval", "transformers"}
    assert not seen & {"datasets", "matplotlib", "jinja2", "rich"}
