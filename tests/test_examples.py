"""Every example runs unchanged and prints what its text promises."""

import re
from pathlib import Path

from tests.support.processes import Fresh

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(name: str, *arguments: Path) -> str:
    """Return what an example prints; a warning is an error."""
    return Fresh("-W", "error", EXAMPLES / name, *arguments).finish()


def numbers(text: str, name: str) -> list[float]:
    """Return every number printed after a name."""
    return [float(number) for number in re.findall(rf"\b{name} ([\d.]+)", text)]


def test_own_loop_brings_the_losses_down() -> None:
    text = output_of("own_loop.py")
    for name in ("total", "lshfm", "kd"):
        first, *_, last = numbers(text, name)
        assert last < first


def test_several_students_bring_their_losses_down() -> None:
    text = output_of("several_students.py")
    for name in ("mobilenet", "shufflenet"):
        first, *_, last = numbers(text, name)
        assert last < first


def test_a_detector_learns_beside_its_own_losses() -> None:
    text = output_of("detector.py")
    for name in ("total", "lshfm"):
        first, *_, last = numbers(text, name)
        assert last < first
    added = [line for line in (EXAMPLES / "detector.py").read_text().splitlines() if "# +" in line]
    assert len(added) <= 10


def test_new_method_is_compared(tmp_path: Path) -> None:
    text = output_of("new_method.py", tmp_path)
    assert [line.split()[1] for line in text.splitlines()[2:5]] == ["teacher", "control", "angle"]
    assert "angle" in (tmp_path / "report.md").read_text()


def test_unlabelled_images_raise_the_fidelity(tmp_path: Path) -> None:
    text = output_of("unlabelled_images.py", tmp_path)
    for name in ("agreement", "cka"):
        first, *_, last = numbers(text, name)
        assert last > first


def test_no_example_is_forgotten() -> None:
    # foreign_network.py is not a script: the tests of networks load it.
    tested = {
        *("own_loop.py", "several_students.py", "new_method.py", "unlabelled_images.py"),
        *("foreign_network.py", "detector.py"),
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
