"""The commands at the end of a report are read, and do what they say, from any folder."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.trained_students import compared
from understudy.cli.commands import main
from understudy.comparison.result import Comparison
from understudy.experiment.evidence import FEWEST_STEPS
from understudy.experiment.run_directory import Run
from understudy.reporting import report
from understudy.reporting.collect import read
from understudy.reporting.next_steps import next_steps, student_to_use


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of one method with a control on photographs, one seed, far above chance."""
    return scored(compared(tmp_path_factory.mktemp("steps")), 95.0)


def scored(comparison: Path, value: float) -> Path:
    """Give all students of a comparison an accuracy."""
    for file in [comparison / "comparison.json", *comparison.glob("*/seed*/evaluation.json")]:
        content = json.loads(file.read_text(encoding="utf-8"))
        for arm in content.get("arms", []):
            arm["metrics"]["top1"] = [value for _ in arm["metrics"]["top1"]]
        if "arms" not in content:
            content["metrics"]["top1"] = value
        file.write_text(json.dumps(content), encoding="utf-8")
    return comparison


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(command: str, name: str) -> list[str]:
    """Return the words of a command of `understudy` that has a certain name."""
    program, *rest = shlex.split(command)
    assert (program, rest[0]) == ("understudy", name)
    return rest


def commands(path: Path) -> list[str]:
    return [step.command for step in next_steps([path])]


def test_a_student_is_tried_measured_and_more_seeds_are_trained(
    comparison: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict, export, evaluate, more = commands(comparison)
    chosen = student_to_use(Comparison.load(comparison))
    assert chosen is not None
    assert words(export, "export")[1:] == [str(chosen[1].path)]
    main(words(predict, "predict"))
    assert '"labels"' in capsys.readouterr().out
    main(words(evaluate, "evaluate"))
    assert "top-1" in capsys.readouterr().out
    main([*words(more, "--resume"), "--device", "cpu"])
    seeds = sorted(path.name for path in (comparison / "kd").glob("seed*"))
    assert seeds == ["seed0", "seed1", "seed2"]
    page = (comparison / "report.html").read_text(encoding="utf-8")
    assert "Single seeds" in page
    assert all(f"seed {n}</th>" in page for n in range(3))


def test_no_seeds_are_added_to_students_near_chance(comparison: Path, tmp_path: Path) -> None:
    classes = len(read([comparison]).classes)
    copied = Path(shutil.copytree(comparison, tmp_path / "near"))
    near = next_steps([scored(copied, 100 / classes + 1)])[-1]
    assert not any("--seeds" in command for command in commands(copied / "kd" / "seed0"))
    assert "near chance" in near.purpose
    epochs = re.search(r"--training\.epochs (\d+)", near.purpose)
    assert epochs
    kd = Run(comparison / "kd" / "seed0")
    assert int(epochs[1]) * kd.history[-1]["step"] >= FEWEST_STEPS
    assert near.command == shlex.join(
        ["understudy", "doctor", str(tmp_path / "near" / "kd" / "seed0" / "recipe.yaml")]
    )


def test_a_run_of_its_own_is_compared_and_extended(comparison: Path, elsewhere: Path) -> None:
    alone = Path(shutil.copytree(comparison / "kd" / "seed0", elsewhere / "alone"))
    *_, compare, extend = commands(alone)
    assert words(compare, "compare")[1] == str(alone / "recipe.yaml")
    assert compare.endswith(f"--seeds 0 1 2 --out {alone}_compared")
    main([*words(extend, "--resume"), "--device", "cpu"])
    assert len(Run(alone).history) == 2
    main([*words(compare, "compare")[:-6], "--seeds", "0", "--no-doctor", "--device", "cpu"])
    (made,) = elsewhere.glob("runs/*/comparison.json")
    assert Comparison.load(made.parent).arms[1]["name"] == "kd"


@pytest.mark.parametrize("name", ["test", "Valid"])
def test_pictures_are_those_that_measured_the_student(
    comparison: Path, elsewhere: Path, name: str
) -> None:
    alone = Path(shutil.copytree(comparison / "kd" / "seed0", elsewhere / "alone"))
    (elsewhere / "images" / name).mkdir(parents=True)
    root = Run(alone).recipe.data.root
    for file, before, after in (
        ("recipe.yaml", root, str(elsewhere / "images")),
        ("environment.json", "folder: test", f"folder: {name}"),
    ):
        text = (alone / file).read_text(encoding="utf-8")
        assert before in text
        (alone / file).write_text(text.replace(before, after), encoding="utf-8")
    assert words(commands(alone)[0], "predict")[1:] == [
        str(alone),
        str(elsewhere / "images" / name),
    ]


@pytest.mark.parametrize(("difference", "arm"), [(1.0, "kd"), (-1.0, "control")])
def test_the_student_to_use_is_the_one_with_the_highest_mean(
    comparison: Path, difference: float, arm: str
) -> None:
    result = Comparison.load(comparison)
    result.arms[1]["verdict"]["difference"] = difference
    chosen = student_to_use(result)
    assert chosen is not None
    assert chosen[0] == arm
    assert chosen[1].path.parent.name == arm


def test_a_page_has_the_commands(comparison: Path) -> None:
    scored(comparison, 95.0)  # other tests have judged it anew
    html = report(comparison).read_text(encoding="utf-8")
    for command in commands(comparison):
        whole = re.sub(r"(--[\w.-]+)", r'<span class="whole">\1</span>', command)
        assert f"<code>{whole}</code>" in html
    assert '<span class="whole">--seeds</span> 0' in html
