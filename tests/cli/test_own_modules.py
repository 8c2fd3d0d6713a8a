"""A file of the current folder never takes the place of a package, but methods are found in it."""

import subprocess
import sys
from pathlib import Path

import pytest

from understudy import methods, models
from understudy.cli.commands import main
from understudy.errors import NetworkError, RecipeError

METHOD = """
import sibling
from understudy.methods import Method

class Mine(Method):
    def loss(self, student, teacher, batch):
        return student["logits"].sum() * 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules called as packages, and some of the user's own."""
    for name in ("rich", "yaml", "torch", "jinja2", "numpy", "docstring_parser", "timm"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the folder')")
    (tmp_path / "sibling.py").write_text("")
    (tmp_path / "own_method.py").write_text(METHOD)
    (tmp_path / "broken_method.py").write_text("raise OSError('no\\nthing')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [("list", "recipes"), ("--version",)])
def test_packages_come_from_where_they_are_installed(folder: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_leaves_the_path_alone(folder: Path) -> None:
    before = list(sys.path)
    main(["list", "methods"])
    assert sys.path == before


def test_methods_of_the_current_folder_are_found(folder: Path) -> None:
    before = list(sys.path)
    assert methods.find("own_method:Mine").__name__ == "Mine"
    assert sys.path == before
    with pytest.raises(RecipeError, match="cannot be imported: OSError: no thing"):
        methods.find("broken_method:Mine")


@pytest.mark.parametrize("name", [":", "a:", ":b", "..x:y", "own_method:Other", "sibling:__name__"])
def test_a_path_that_names_no_method_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"cannot be imported|not a subclass"):
        methods.find(name)


def test_a_file_of_a_network_may_import_its_neighbours(folder: Path) -> None:
    inner = folder / "nets"
    inner.mkdir()
    (inner / "blocks_beside.py").write_text("from torch.nn import Linear")
    text = "import sibling\nimport blocks_beside\ndef factory():\n    import yaml\n    return 3"
    (inner / "net.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(NetworkError, match="returns int, not a torch module"):
        models.find("nets/net.py:factory")
    assert sys.path == before
