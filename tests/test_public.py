"""The public names: all there, all documented, none hidden by a module, none in a hurry."""

import inspect
import re
import resource
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
