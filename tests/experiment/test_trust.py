"""A run directory that somebody else made executes no file until the user says so."""

import py_compile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from understudy import models, tasks
from understudy.comparison.compare import compare
from understudy.config.recipe import Network, Recipe
from understudy.errors import NetworkError, UnderstudyError
from understudy.experiment import build, networks
from understudy.experiment.evaluate import evaluate
from understudy.experiment.images import read_images
from understudy.experiment.run_directory import Run
from understudy.experiment.train import distill, train
from understudy.reproduction.reproduce import reproduce
from understudy.reproduction.run_costs import Costs


@pytest.fixture
def received(tmp_path: Path) -> Path:
    """A run directory whose network is a file that leaves a trace when it is executed."""
    folder = tmp_path / "received"
    folder.mkdir()
    (folder / "net.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'executed')!r}).touch()\n"
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(4, num_classes))\n"
    )
    spec = Network(name=f"{folder / 'net.py'}:net")
    recipe = Recipe(student=spec, trust=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "student.safetensors").write_bytes(b"")
    return folder


def executed(folder: Path) -> bool:
    return (folder.parent / "executed").exists()


def test_evaluating_a_received_run_executes_nothing(received: Path) -> None:
    with pytest.raises(NetworkError, match=r"which the run names.*--trust true"):
        evaluate(received)
    with pytest.raises(NetworkError, match="trust the run"):
        Run(received).student()
    assert not executed(received)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("part", ["", "best", "student.safetensors", "best/student.safetensors"])
def test_weights_of_a_received_run_execute_nothing(received: Path, role: str, part: str) -> None:
    (received / "best").mkdir()
    (received / "best" / "student.safetensors").write_bytes(b"")
    spec = Network(weights=str(received / part))
    recipe = replace(Recipe(student=Network(name="resnet8")), **{role: spec})
    with pytest.raises(NetworkError, match=rf"The {role} is built by the file .*net\.py"):
        build.experiment(recipe)
    assert not executed(received)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_comparing_with_a_received_run_executes_nothing(
    received: Path, tmp_path: Path, role: str
) -> None:
    parts = {"student": {"name": "resnet8"}, "teacher": {"name": "resnet8"}}
    recipe = {"data": {"images": 40}, **parts, role: {"weights": str(received)}}
    if role == "student":
        torch.save(models.find("resnet8", num_classes=10).module.state_dict(), tmp_path / "t.pth")
        recipe["teacher"] = {"name": "resnet8", "weights": str(tmp_path / "t.pth")}
    with pytest.raises(NetworkError, match=rf"The {role} is built by the file .*net\.py"):
        compare(recipe, methods=["kd"], seeds=[0], out=tmp_path / "out")
    assert not executed(received)


def test_predicting_the_cost_of_a_received_run_executes_nothing(received: Path) -> None:
    recipe = Recipe.load(Recipe(student=Network(weights=str(received))), {"data.images": 40})
    with pytest.raises(NetworkError, match=r"The student is built by the file"):
        Costs(lambda each: read_images(each, tasks.find(each.task)), None).work(recipe)
    assert not executed(received)


def test_a_file_that_the_user_names_is_executed(received: Path) -> None:
    recipe = Recipe(student=Network(name=f"{received / 'net.py'}:net"))
    build.experiment(Recipe.load(recipe, {"data.images": 40}))
    assert executed(received)


def test_a_run_may_name_a_file_of_the_working_folder(
    received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = received / "run"
    inside.mkdir()
    for name in ("recipe.yaml", "student.safetensors"):
        (received / name).rename(inside / name)
    monkeypatch.chdir(received)
    of_run = Run(inside).recipe
    networks.check_trust(replace(of_run, trust=False), of_run, inside)
    networks.check_trust(Recipe(student=Network(weights=str(inside))))
    monkeypatch.chdir(inside)
    with pytest.raises(NetworkError, match="outside the working folder"):
        networks.check_trust(replace(of_run, trust=False), of_run, inside)


def test_a_file_in_the_run_itself_is_not_the_users(
    received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(received.parent)
    with pytest.raises(NetworkError, match=r"outside the working folder or in the run itself"):
        evaluate(received)
    monkeypatch.chdir(received)
    with pytest.raises(NetworkError, match="trust the run"):
        Run(Path()).student()
    assert not executed(received)


COMMANDS = {
    "train": train,
    "distill": distill,
    "compare": lambda recipe: compare(recipe, methods=["kd"]),
    "bank": lambda recipe: Recipe.load(recipe),
    "reproduce": lambda recipe: reproduce(recipe, out="out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_file_of_a_recipe_may_not_name_a_file_elsewhere(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    recipe: dict[str, object] = {"student": f"{received / 'net.py'}:net", "trust": True}
    if command == "reproduce":
        recipe = {"trust": True, "rows": {"only": {"student.name": recipe["student"]}}}
    sent = tmp_path / "sent.yaml"
    sent.write_text(yaml.safe_dump(recipe))
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    with pytest.raises(NetworkError, match=r"builds its student by the file .*net\.py.*--trust"):
        COMMANDS[command](str(sent))
    assert not executed(received)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_the_user_names_or_trusts_is_executed(
    received: Path, tmp_path: Path, role: str
) -> None:
    name, sent = f"{received / 'net.py'}:net", tmp_path / "sent.yaml"
    sent.write_text(yaml.safe_dump({"student": "resnet8", role: {"name": name}}))
    for allowed in ({"trust": True}, {f"{role}.name": name}, {role: name}, {role: {"name": name}}):
        assert getattr(Recipe.load(sent, allowed), role).name == name
    with pytest.raises(NetworkError, match="outside the working folder"):
        Recipe.load(sent, {"trust": False})


def test_the_working_folder_is_the_users(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(received)
    outside = tmp_path / "sent.yaml"
    outside.write_text(yaml.safe_dump({"student": "net.py:net"}))
    assert Recipe.load(outside).student.name == "net.py:net"
    Path("own.yaml").write_text(yaml.safe_dump({"student": "../other.py:net", "trust": True}))
    assert Recipe.load("own.yaml").trust
    Path("link.py").symlink_to(tmp_path / "elsewhere.py")
    outside.write_text(yaml.safe_dump({"student": "link.py:net"}))
    with pytest.raises(NetworkError, match="outside the working folder"):
        Recipe.load(outside)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hf:folder", {"trust_remote_code": True}, "is not executed"),
        ("timm:resnet18", {"checkpoint_path": "x.pth"}, "no option checkpoint_path"),
        ("timm:resnet18", {"pretrained_cfg": {"file": "x.pth"}}, "no option file"),
        ("timm:resnet18", {"pretrained_cfg_overlay": {"url": "http://x"}}, "no option url"),
    ],
)
def test_options_that_would_run_code_are_refused(
    name: str, options: dict[str, object], words: str
) -> None:
    if name.startswith("hf:"):
        pytest.importorskip("transformers")
    with pytest.raises(NetworkError, match=words):
        models.find(name, options=options)


def test_no_other_form_of_a_name_executes_a_file(received: Path) -> None:
    compiled = received / "net.pyc"
    py_compile.compile(str(received / "net.py"), cfile=str(compiled))
    for name in (f"file:{compiled}:net", f"{compiled}:net", f"timm:{received / 'net.py'}:net"):
        with pytest.raises(UnderstudyError, match="There is no"):
            models.find(name, num_classes=3)
    assert not executed(received)
