"""The folder of a page, after all of its blocks have run in it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.site.materials import MATERIALS, Material, cifar100, folder
from tests.site.page_blocks import ROOT, Block, blocks
from tests.support.processes import Fresh

Reader = Callable[[str], Path]


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Reader:
    """Runs a page once and returns its folder."""
    folders: dict[str, Path] = {}

    def read(page: str) -> Path:
        if page not in folders:
            material = MATERIALS.get(page, Material())
            place = tmp_path_factory.mktemp(Path(page).stem) / "here"
            if material.after:
                shutil.copytree(read(material.after), place)
            else:
                folder(place)
            if material.detector:
                shutil.copytree(request.getfixturevalue("saved_detector"), place / "runs/detector")
            if material.papers:
                cifar100(place / "cifar100")
            for name, text in material.files.items():
                (place / name).write_text(text, encoding="utf-8")
            run([block for block in blocks(page) if not block.reason], place, material)
            folders[page] = place
        return folders[page]

    return read


def run(runnable: list[Block], place: Path, material: Material) -> None:
    """Run blocks in a folder, in one process."""
    first = [Block("", "shell", material.first)] if material.first else []
    content = {
        "page": runnable[0].page if runnable else "",
        "words": dict(material.words),
        "blocks": [asdict(block) for block in (*first, *runnable)],
    }
    file = place / "blocks.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    script = f"import sys; sys.argv = ['', {str(file)!r}]; sys.path.insert(0, {str(ROOT)!r})\n"
    script += "import runpy; runpy.run_module('tests.site.run_page', run_name='__main__')"
    Fresh("-c", script, folder=place).finish()
