"""Every example runs as it stands, and shows what its text promises."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def said(name: str, *arguments: Path) -> str:
    """What an example prints; a warning is an error."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(text: str, name: str) -> list[float]:
    """Every number printed behind a name."""
    return [float(number) for number in re.findall(rf"\b{name} ([\d.]+)", text)]


def test_own_loop_brings_the_losses_down() -> None:
    text = said("own_loop.py")
    for name in ("total", "lshfm", "kd"):
        first, *_, last = numbers(text, name)
        assert last < first


def test_several_students_bring_their_losses_down() -> None:
    text = said("several_students.py")
    for name in ("mobilenet", "shufflenet"):
        first, *_, last = numbers(text, name)
        assert last < first


def test_a_detector_learns_beside_its_own_losses() -> None:
    text = said("detector.py")
    for name in ("total", "lshfm"):
        first, *_, last = numbers(text, name)
        assert last < first
    added = [line for line in (EXAMPLES / "detector.py").read_text().splitlines() if "# +" in line]
    assert len(added) <= 10


def test_new_method_is_compared(tmp_path: Path) -> None:
    text = said("new_method.py", tmp_path)
    assert [line.split()[1] for line in text.splitlines()[2:5]] == ["teacher", "control", "angle"]
    assert "angle" in (tmp_path / "report.md").read_text()


def test_unlabelled_images_raise_the_fidelity(tmp_path: Path) -> None:
    text = said("unlabelled_images.py", tmp_path)
    for name in ("agreement", "cka"):
        first, *_, last = numbers(text, name)
        assert last > first


def test_no_example_is_forgotten() -> None:
    # foreign_network.py is no script but a network, which the tests of networks load.
    tested = {
        *("own_loop.py", "several_students.py", "new_method.py", "unlabelled_images.py"),
        *("foreign_network.py", "detector.py"),
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
